//! The binary as its user starts it: the listening line, port 0, the layers of the configuration, the
//! operator's key, and the second process on one directory.

use std::os::unix::fs::PermissionsExt;

use crate::support::*;

#[test]
fn it_says_where_it_listens_once_it_accepts_and_nothing_else() {
    let server = Server::start();
    assert_eq!(server.stdout(), format!("listening on {}\n", server.base()));
    let port: u16 = server.base().rsplit(':').next().unwrap().parse().unwrap();
    assert_ne!(port, 0);
    server.anyone().get("/healthz").expect(200);
}

#[test]
fn the_data_directory_is_laid_out_as_promised() {
    let server = Server::start();
    let tenant = server.tenant("laid-out");
    let files = server.files();
    for expected in ["LOCK", "system/app.db", "system/mark.db", "system/analytics.db", "system/cache.db", "system/queue.db", "system/keys"]
    {
        assert!(files.iter().any(|file| file == expected), "{expected}: {files:?}");
    }
    for role in ["database", "cache", "queue"] {
        assert!(server.file(&tenant.id, role).is_file(), "{role}: {files:?}");
    }
}

#[test]
fn a_second_process_on_the_directory_is_refused_clearly() {
    let server = Server::start();
    let started = std::time::Instant::now();
    let second = server.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    let text = said(&second);
    assert!(text.contains(&*server.dir().to_string_lossy()), "names the directory: {text}");
    assert!(!text.contains("listening") && !text.contains("panicked"), "{text}");
    assert!(started.elapsed() < SOON);
    server.anyone().get("/healthz").expect(200);
}

#[test]
fn a_killed_process_leaves_no_lock_behind() {
    let mut server = Server::start();
    server.kill9();
    server.start_again();
    server.anyone().get("/readyz").expect(200);
}

fn refused(settings: impl FnOnce(&mut Settings)) -> String {
    let output = Server::stopped(settings).command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let text = refused(|c| {
        c.set("auth.leway_s", 5);
    });
    assert!(text.contains("auth.leway_s") && text.contains("auth.leeway_s"), "{text}");
    let text = refused(|c| {
        c.env("TENANTRY_SQLITE__READER_PER_FILE", "2");
    });
    assert!(text.contains("sqlite.readers_per_file"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenantry.toml");
    std::fs::write(&file, "[plans.gold]\ndatabase_byte = 5\n").unwrap();
    let text = refused(|c| {
        c.flag("--config").flag(file.to_str().unwrap());
    });
    assert!(text.contains("database_bytes") && text.contains("tenantry.toml"), "{text}");
}

#[test]
fn a_wrong_value_says_what_was_expected_and_where_it_came_from() {
    let text = refused(|c| {
        c.env("TENANTRY_AUTH__LEEWAY_S", "soon");
    });
    assert!(text.contains("auth.leeway_s") && text.contains("TENANTRY_AUTH__LEEWAY_S"), "{text}");
    let text = refused(|c| {
        c.set("http.workers", -1);
    });
    assert!(text.contains("http.workers"), "{text}");
    let text = refused(|c| {
        c.flag("--config").flag("/nowhere/tenantry.toml");
    });
    assert!(text.contains("/nowhere/tenantry.toml"), "{text}");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenantry.toml");
    std::fs::write(&file, "[auth]\nleeway_s = 11\ntoken_ttl_s = 111\naudience = 'file'\n").unwrap();
    let config = |json: bool| {
        let mut command = binary();
        command.arg("config").args(json.then_some("--json")).arg("--config").arg(&file);
        command.args(["--set", "auth.leeway_s=33"]).env("TENANTRY_AUTH__LEEWAY_S", "22").env("TENANTRY_AUTH__TOKEN_TTL_S", "222");
        let output = command.current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = config(false);
    let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {text}")).to_owned();
    assert!(line("auth.leeway_s").contains("33") && line("auth.leeway_s").contains("--set"), "{text}");
    assert!(line("auth.token_ttl_s").contains("222") && line("auth.token_ttl_s").contains("TENANTRY_AUTH__TOKEN_TTL_S"), "{text}");
    assert!(line("auth.audience").contains("file") && line("auth.audience").contains("tenantry.toml"), "{text}");
    assert!(line("auth.issuer ").contains("default"), "{text}");
    serde_json::from_str::<Value>(&config(true)).unwrap();
}

#[test]
fn secrets_are_not_shown() {
    let secret = "this-is-a-secret-of-more-than-32-bytes";
    let mut command = binary();
    let issuer = format!("auth.issuers=[{{issuer = 'i', audience = 'a', hs256_secret = '{secret}'}}]");
    let output = command.args(["config", "--set", &issuer]).current_dir(std::env::temp_dir()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains(secret), "{}", said(&output));
}

#[test]
fn the_first_operators_key_is_made_and_kept_to_its_owner() {
    let mut server = Server::stopped(|c| {
        c.without_env("TENANTRY_ADMIN_KEY");
    });
    server.start_again();
    let path = server.dir().join("system/admin.key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let key = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert!(key.len() >= 40, "256 random bits");
    let said = server.log() + &server.stdout();
    assert!(said.contains("admin.key") && !said.contains(&key), "the path is printed, the key never");
    let operator = server.anyone().bearer(&key);
    operator.get("/admin/v1/tenants").expect(200);
    // Stored hashed: the key itself is in no file but its own.
    server.stop();
    for file in server.files().iter().filter(|file| file.starts_with("system/") && !file.ends_with("admin.key")) {
        let bytes = std::fs::read(server.dir().join(file)).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{file} has the key");
    }
    // The same key after a restart.
    server.start_again();
    operator.get("/admin/v1/tenants").expect(200);
}

#[test]
fn files_that_hold_secrets_are_their_owners_alone() {
    let server = Server::start();
    for file in server.files().iter().filter(|file| file.starts_with("system/keys/")) {
        let mode = std::fs::metadata(server.dir().join(file)).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{file}");
    }
}

#[test]
fn a_weak_operators_key_is_refused() {
    let text = refused(|c| {
        c.env("TENANTRY_ADMIN_KEY", "short");
    });
    assert!(text.contains("TENANTRY_ADMIN_KEY") && !text.contains("panicked"), "{text}");
}

#[test]
fn a_new_operators_key_replaces_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Server::with(|c| {
        c.dir(folder.path());
    });
    first.stop();
    let second = Server::with(|c| {
        c.dir(folder.path()).env("TENANTRY_ADMIN_KEY", "another-operator-key-for-tests");
    });
    second.anyone().bearer("another-operator-key-for-tests").get("/admin/v1/tenants").expect(200);
    second.admin().get("/admin/v1/tenants").refused(401, "unauthenticated");
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let server = Server::start();
    let address = server.base().trim_start_matches("http://").to_owned();
    let home = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["serve", "--listen", &address, "--data-dir"]).arg(home.path()).env("TENANTRY_ADMIN_KEY", ADMIN_KEY);
    let output = command.current_dir(home.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&address), "{}", said(&output));
}

#[test]
fn usage_errors_and_help_are_told_apart() {
    let run = |args: &[&str]| binary().args(args).current_dir(std::env::temp_dir()).output().unwrap();
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["fly"]).status.code(), Some(2));
    let version = run(&["version"]);
    assert!(said(&version).contains(env!("CARGO_PKG_VERSION")) && said(&version).contains("3.5"), "{}", said(&version));
}

#[test]
fn the_command_line_does_what_the_admin_api_does() {
    let server = Server::start();
    let run = |args: &[&str]| {
        let output = server.cli(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let slug = unique("shell");
    let made: Value = serde_json::from_str(&run(&["tenant", "create", &slug, "--name", "From the shell", "--json"])).unwrap();
    let id = made["tenant"]["id"].as_str().unwrap();
    let tenant = server.tenant_of(&made);
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES ('seen');");
    assert!(run(&["tenant", "list"]).contains(&slug));
    assert!(run(&["tenant", "show", &slug]).contains(id));
    assert!(run(&["sql", "--tenant", &slug, "SELECT x FROM t"]).contains("seen"));
    run(&["tenant", "suspend", &slug]);
    tenant.sql("SELECT 1", json!([])).refused(403, "tenant_suspended");
    run(&["tenant", "resume", &slug]);
    tenant.sql("SELECT 1", json!([])).expect(200);
    assert!(run(&["audit", "list"]).contains(id));
    run(&["audit", "verify"]);
    run(&["migrate", "status"]);
    run(&["health"]);
    let output = server.cli(["tenant", "show", "nobody-of-that-name"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!said(&output).contains("panicked") && said(&output).contains("nobody-of-that-name"), "{}", said(&output));
}
