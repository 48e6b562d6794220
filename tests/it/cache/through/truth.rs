//! Who write through, fill, set and delete the same keys at once: once all are answered, an entry is what the database has.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use super::{body, path, stored, tenant};
use crate::support::{Dice, Server, TenantClient, at_once};

/// As a client does that looks into the database for what the cache lacks.
fn fill(tenant: &TenantClient, key: &str) -> bool {
    let asked = tenant.get(&format!("{}?fill=60", path(key)));
    let Some(token) = asked.header("fill-token") else { return asked.status == 200 };
    let value = stored(tenant, key).to_string();
    let put = tenant.call("PUT", &path(key)).header("Fill-Token", token).bytes("text/plain", value).send();
    assert!(put.status == 204 || put.status == 409, "{}", put.text());
    false
}

#[test]
fn whoever_comes_between_an_entry_is_what_the_database_has_or_none() {
    let server = Server::start();
    let tenant = tenant(&server);
    let keys = ["a", "b"];
    for key in keys {
        tenant.put(&format!("{}/through", path(key)), body(key, 0)).expect(200);
    }
    let (next, hits, set, there) = (AtomicI64::new(1), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..40 {
        for key in keys {
            // Alone, it sets the entry: each round begins with one to get wrong.
            let value = next.fetch_add(1, SeqCst);
            tenant.put(&format!("{}/through", path(key)), body(key, value)).expect(200);
            assert_eq!(tenant.get(&path(key)).expect(200).text(), value.to_string());
        }
        let seed = at_once(5, |who| {
            let mut dice = Dice::new();
            for _ in 0..2 {
                let key = keys[dice.below(2) as usize];
                match (who, dice.below(8)) {
                    (3 | 4, 0) => drop(tenant.delete(&path(key)).expect(204)),
                    (3 | 4, _) => _ = hits.fetch_add(u64::from(fill(&tenant, key)), SeqCst),
                    _ => {
                        let value = next.fetch_add(1, SeqCst);
                        let answer = tenant.put(&format!("{}/through", path(key)), body(key, value)).expect(200);
                        set.fetch_add(u64::from(answer.header("etag").is_some()), SeqCst);
                    }
                }
            }
            dice.seed
        });
        for key in keys {
            let entry = tenant.get(&path(key));
            if entry.status == 200 {
                there.fetch_add(1, SeqCst);
                assert_eq!(entry.text(), stored(&tenant, key).to_string(), "{key} in round {round}, seeds {seed:?}");
            }
        }
    }
    let [hits, set, there] = [&hits, &set, &there].map(|n| n.load(SeqCst));
    println!(
        "{} writes, {set} of 240 at once set the entry; {hits} hits meanwhile, {there} of 80 entries there after",
        next.load(SeqCst) - 1
    );
}
