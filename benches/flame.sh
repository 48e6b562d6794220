#!/usr/bin/env bash
# Draws where the server's processor time goes under four loads, each as docs/flame/NAME.svg.
#
#     cargo build --release && benches/flame.sh [NAME…]
#
# Needs perf (Debian: linux-perf), inferno (cargo install inferno), and root or kernel.perf_event_paranoid=1 or less, else the
# kernel's part has no names. What is sampled is processor time, 499 times a second, so a busy machine makes a picture poorer
# but not wrong. Stacks are unwound by the tables that every build has, so it is the binary that is deployed.
set -euo pipefail
cd "$(dirname "$0")/.."
tenantry=${TENANTRY:-target/release/tenantry}
seconds=20
scratch=$(mktemp -d -p "$(dirname "$tenantry")")
load=
trap '[ -z "$load" ] || kill "$load" 2> /dev/null || true; rm -rf "$scratch"' EXIT

# NAME TITLE and what `tenantry load` is to do.
draw() {
    local name=$1 title=$2 began settling server
    shift 2
    set -- "$tenantry" load --data-dir "$scratch/$name" --skew uniform "$@"
    # Once to make the tenants: how long that takes is longer than finding them again, so what is recorded is load alone.
    began=$SECONDS
    "$@" --warmup 0s --duration 1s > "$scratch/report"
    settling=$((SECONDS - began + 2))
    "$@" --warmup "${settling}s" --duration "$((seconds + 5))s" > "$scratch/report" &
    load=$!
    sleep "$settling"
    server=$(pgrep -P "$load")
    perf record --quiet -e cpu-clock -F 499 --call-graph dwarf,32768 -p "$server" -o "$scratch/samples" -- sleep "$seconds" 2> /dev/null
    wait "$load"
    load=
    perf script -i "$scratch/samples" --no-inline 2> /dev/null | inferno-collapse-perf | readable > "$scratch/folded"
    inferno-flamegraph --title "$title" --minwidth 0.3 --hash --colors rust --width 1400 < "$scratch/folded" > "docs/flame/$name.svg"
    rm -rf "${scratch:?}/$name" "$scratch/samples"
    echo "$title"
    grep -E '^(read|insert|enqueue|claim|ack|total|server) ' "$scratch/report"
    shares < "$scratch/folded"
}

# Without types' parameters, the frames that only pass a call on, and numbers of threads.
readable() {
    sed -E ':again; s/([A-Za-z0-9_])(::)?<[^<>; ]*( = [^<>;]*)?>/\1/g; t again
            s/<impl [^<>;]*>:://g; s/<([^<>;]*) as [^<>;]*>/\1/g; s/<([^<>;]*)>/\1/g
            s/::\{\{(closure|vtable\.shim)\}\}//g; s/^(read|write)-[0-9]+/\1 lanes/; s/\.(isra|part|constprop)\.[0-9]+//g; s/;tenantry::/;/g' |
        awk -F ';' '{
            frames = $1; before = ""; match($NF, / [0-9]+$/); count = substr($NF, RSTART); $NF = substr($NF, 1, RSTART - 1)
            for (at = 2; at <= NF; at++)
                if ($at != before && $at !~ /^(actix_web::(scope::Scope|resource::Resource)::register|(core|alloc|std|actix_rt|actix_server|actix_service|futures_util|tokio::(runtime|task))::.*|clone3?|start_thread|entry_SYSCALL_64_after_hwframe|do_syscall_64)$/) {
                    frames = frames ";" $at; before = $at
                }
            print frames count
        }'
}

# In percent, the time within each frame that has most of it.
shares() {
    awk '{ total += $NF; stack = $0; sub(/ [0-9]+$/, "", stack); delete seen
           for (at = split(stack, frames, ";"); at > 0; at--) if (!seen[frames[at]]++) within[frames[at]] += $NF }
         END { for (name in within) printf "%5.1f %% %s\n", 100 * within[name] / total, name }' | sort -rn | head -n 60
}

mkdir -p docs/flame
for name in "${@:-read insert thrash queue}"; do
    for name in $name; do
        case $name in
        read) draw read "Point reads over 1,000 tenants" --tenants 1000 --mix read=1 ;;
        insert) draw insert "Inserts over 1,000 tenants, NORMAL" --tenants 1000 --mix insert=1 --set durability.database=normal ;;
        thrash) draw thrash "Point reads over 1,000 tenants with room for a tenth" --tenants 1000 --mix read=1 --set sqlite.descriptors=400 ;;
        queue) draw queue "One tenant's jobs, FULL: added, claimed by ten, acknowledged" --tenants 1 --mix queue=1 --set plans.default.concurrent_statements=0 ;;
        *) echo "flame.sh: no such picture: $name; there are read, insert, thrash, queue" >&2; exit 1 ;;
        esac
    done
done
