//! The layers as a user meets them: files in a folder, variables, flags.

use super::*;

struct Case {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
    set: Vec<String>,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap(), variables: Vec::new(), set: Vec::new() }
    }

    fn file(self, text: &str) -> Case {
        std::fs::write(self.dir.path().join(FILE_DEFAULT), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Case {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, assignment: &str) -> Case {
        self.set.push(assignment.to_owned());
        self
    }

    fn inputs(&self) -> Inputs {
        let ambient = Ambient::of(self.dir.path().to_owned(), self.variables.clone());
        Inputs { file: None, data_dir: None, listen: None, set: self.set.clone(), ambient }
    }

    fn load(&self) -> Effective {
        load(&self.inputs()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn error(&self) -> String {
        match load(&self.inputs()) {
            Ok(_) => panic!("this configuration was accepted"),
            Err(e) => e.to_string(),
        }
    }
}

fn leaf<'a>(effective: &'a Effective, key: &str) -> &'a Leaf {
    effective.leaves.iter().find(|leaf| leaf.key == key).unwrap_or_else(|| panic!("no leaf {key}"))
}

#[test]
fn without_any_source_the_defaults_hold_and_paths_are_absolute() {
    let case = Case::new();
    let effective = case.load();
    let data_dir = case.dir.path().join("tenants");
    assert_eq!(effective.config, Config { data_dir: data_dir.clone(), ..Config::default() });
    assert_eq!(leaf(&effective, "data_dir").value, data_dir.to_str().unwrap());
    assert!(effective.leaves.iter().all(|leaf| leaf.origin == Origin::Default));
    assert_eq!(leaf(&effective, "tenants.migrations_dir").value, serde_json::Value::Null);
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let case = Case::new()
        .file("[auth]\nleeway_s = 1\ntoken_ttl_s = 10\nissuer = \"file\"\n")
        .variable("TENANTRY_AUTH__LEEWAY_S", "2")
        .variable("TENANTRY_AUTH__TOKEN_TTL_S", "20")
        .set("auth.leeway_s=3");
    let effective = case.load();
    let auth = &effective.config.auth;
    assert_eq!((auth.leeway_s, auth.token_ttl_s, auth.issuer.as_str()), (3, 20, "file"));
    assert_eq!(leaf(&effective, "auth.leeway_s").origin, Origin::Flag("--set"));
    assert_eq!(leaf(&effective, "auth.token_ttl_s").origin, Origin::Variable("TENANTRY_AUTH__TOKEN_TTL_S".to_owned()));
    let file = case.dir.path().join(FILE_DEFAULT);
    assert_eq!(leaf(&effective, "auth.issuer").origin, Origin::File { path: file, line: 4 });
}

#[test]
fn the_flags_of_their_own_win_over_everything() {
    let mut inputs = Case::new().set("listen=127.0.0.1:1").inputs();
    inputs.data_dir = Some("elsewhere".into());
    inputs.listen = Some("127.0.0.1:0".to_owned());
    let effective = load(&inputs).unwrap();
    assert!(effective.config.data_dir.ends_with("elsewhere") && effective.config.data_dir.is_absolute());
    assert_eq!(effective.config.listen.port(), 0);
    assert_eq!(leaf(&effective, "listen").origin, Origin::Flag("--listen"));
}

#[test]
fn an_unknown_key_names_where_it_stands_and_the_nearest_known_one() {
    let error = Case::new().file("listen = \"127.0.0.1:0\"\n\n[auth]\nleway_s = 5\n").error();
    assert!(error.contains("`auth.leway_s`") && error.contains("tenantry.toml, line 4"), "{error}");
    assert!(error.contains("Did you mean `auth.leeway_s`?"), "{error}");

    let error = Case::new().variable("TENANTRY_LISTN", "127.0.0.1:0").error();
    assert!(error.contains("variable TENANTRY_LISTN") && error.contains("`listen`?"), "{error}");

    let error = Case::new().set("leeway_s=5").error();
    assert!(error.contains("flag --set") && error.contains("`auth.leeway_s`?"), "{error}");

    let error = Case::new().set("plans.free.databse_bytes=5").error();
    assert!(error.contains("`plans.free.database_bytes`?"), "{error}");

    let error = Case::new().set("listen.port=5").error();
    assert!(error.contains("`listen.port`"), "{error}");
}

#[test]
fn a_wrong_type_names_the_key_where_it_stands_and_what_is_expected() {
    for (assignment, expected) in [
        ("auth.leeway_s=soon", "expected a whole number, 0 or more, got \"soon\""),
        ("http.max_body_bytes=-1", "expected a whole number, 0 or more, got -1"),
        ("plans.default.burst=5000000000", "expected a whole number from 0 to 4294967295"),
        ("durability.database=fsync", "expected one of `full`, `normal`, `off`, got \"fsync\""),
        ("listen=8080", "expected an address and a port"),
        ("auth={leeway_s = 1.5}", "expected a whole number, 0 or more, got 1.5"),
        ("auth=5", "expected a table of keys"),
        ("auth.issuers=5", "expected a list of tables"),
        ("auth.issuers=[{issuer = 5}]", "`auth.issuers.0.issuer` (flag --set): expected a string, got 5"),
    ] {
        let error = Case::new().set(assignment).error();
        assert!(error.contains(expected) && error.contains("(flag --set)"), "{assignment}: {error}");
    }
    let error = Case::new().file("telemetry.scrape_key = [\"hush\"]\n").error();
    assert!(error.contains("expected a string") && !error.contains("hush"), "{error}");
}

#[test]
fn a_list_or_table_given_as_something_else_is_not_shown_as_it_may_have_a_secret_in_it() {
    let cases = [
        ("TENANTRY_AUTH__ISSUERS", r#"[{"hs256_secret":"hush"}]"#, "expected a list of tables, got a value of type string"),
        ("TENANTRY_AUTH__ISSUERS__0", r#"{"hs256_secret":"hush"}"#, "expected a table of keys, got a value of type string"),
        ("TENANTRY_AUTH", r#"[{hs256_secret = "hush"}]"#, "expected a table of keys, got a value of type array"),
    ];
    for (name, text, expected) in cases {
        let error = Case::new().variable(name, text).error();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn a_string_key_takes_text_that_looks_like_something_else() {
    let effective = Case::new().variable("TENANTRY_AUTH__ISSUER", "123").set("auth.audience=\"true\"").load();
    assert_eq!((effective.config.auth.issuer.as_str(), effective.config.auth.audience.as_str()), ("123", "true"));
}

#[test]
fn a_plan_given_in_part_takes_the_defaults_for_the_rest() {
    let effective = Case::new().file("[plans.free]\ndatabase_bytes = 1_000_000\n[plans.empty]\n").set("plans.tiny.burst=3").load();
    let plans = &effective.config.plans;
    let default = crate::config::Plan::default();
    assert_eq!(plans["free"], crate::config::Plan { database_bytes: 1_000_000, ..default.clone() });
    assert_eq!(plans["tiny"].burst, 3);
    assert_eq!(plans["empty"], default);
    assert!(plans.contains_key("default"), "a default plan is always there");
    assert_eq!(leaf(&effective, "plans.free.burst").origin, Origin::Default);
    let error = Case::new().file("[plans.\"../x\"]\nburst = 1\n").error();
    assert!(error.contains("cannot be a plan's name"), "{error}");
}

const ISSUER: &str = "[[auth.issuers]]\nissuer = \"https://idp.example\"\naudience = \"app\"\n";

#[test]
fn a_secret_may_come_from_a_variable_beside_the_file_and_is_never_shown() {
    let secret = "0123456789abcdef0123456789abcdef";
    let effective = Case::new().file(ISSUER).variable("TENANTRY_AUTH__ISSUERS__0__HS256_SECRET", secret).load();
    assert_eq!(effective.config.auth.issuers[0].hs256_secret.as_deref(), Some(secret));
    assert_eq!(leaf(&effective, "auth.issuers.0.hs256_secret").value, "(secret)");
    assert_eq!(leaf(&effective, "auth.issuers.0.issuer").value, "https://idp.example");
    assert!(!format!("{:?}", effective.leaves).contains(secret));
}

#[test]
fn an_issuer_has_exactly_one_source_of_keys_and_it_is_a_safe_one() {
    for (more, expected) in [
        ("", "exactly one of"),
        ("jwks_url = \"https://a/b\"\njwks_file = \"k.json\"\n", "exactly one of"),
        ("jwks_url = \"http://idp.example/jwks\"\n", "no https URL"),
        ("hs256_secret = \"short\"\n", "at least 32 bytes"),
        ("jwks_file = \"\"\n", "must not be empty"),
        ("jwks_file = \"k.json\"\ntenant_claim = \"\"\n", "a claim's name"),
    ] {
        let error = Case::new().file(&format!("{ISSUER}{more}")).error();
        assert!(error.contains(expected) && error.contains("auth.issuers.0"), "{more}: {error}");
        assert!(!error.contains("short\""), "a secret must not be in {error}");
    }
    let error = Case::new().file("[[auth.issuers]]\nissuer = \"x\"\n").error();
    assert!(error.contains("missing field `audience`") && error.contains("line 2"), "{error}");
    let error = Case::new().file("[[auth.issuers]]\n").error();
    assert!(error.contains("`auth.issuers.0`") && error.contains("is empty"), "{error}");
    let error = Case::new().set("auth.issuers.1.issuer=x").error();
    assert!(error.contains("the next entry of auth.issuers is 0"), "{error}");
    let twice = format!("{ISSUER}jwks_file = \"k\"\n{ISSUER}jwks_file = \"k\"\n");
    let error = Case::new().file(&twice).error();
    assert!(error.contains("auth.issuers.1.issuer") && error.contains("already"), "{error}");
    let ok = Case::new().file(&format!("{ISSUER}jwks_file = \"k.json\"\n"));
    assert_eq!(ok.load().config.auth.issuers[0].jwks_file.as_deref(), Some(ok.dir.path().join("k.json").as_path()));
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for assignment in [
        "http.max_body_bytes=0",
        "http.cors_origins=['https://app.example.com/']",
        "http.cors_origins=['app.example.com']",
        "sqlite.readers_per_file=0",
        "executor.group_max=0",
        "hrana.turn_wait_ms=0",
        "telemetry.log=loud",
        "auth.tenant_claim=",
        "auth.leeway_s=86400",
        "auth.token_ttl_s=9223372036854775807",
        "sqlite.wal_max_bytes=1",
        "data_dir=",
        "telemetry.scrape_key=",
    ] {
        let key = assignment.split('=').next().unwrap();
        let error = Case::new().set(assignment).error();
        assert!(error.contains(&format!("`{key}` (flag --set)")), "{assignment}: {error}");
    }
}

#[test]
fn a_file_that_was_named_must_be_there_and_be_toml() {
    let mut inputs = Case::new().inputs();
    inputs.file = Some("nowhere.toml".into());
    let error = load(&inputs).unwrap_err().to_string();
    assert!(error.contains("nowhere.toml") && error.contains("cannot be read"), "{error}");
    let error = Case::new().file("listen = \"127.0.0.1:0\"\n[auth\n").error();
    assert!(error.contains("tenantry.toml, line 2: not valid TOML"), "{error}");
    let error = Case::new().variable("TENANTRY_CONFIG", "gone.toml").error();
    assert!(error.contains("gone.toml"), "{error}");
}

#[test]
fn variables_that_are_not_ours_or_are_empty_are_left_alone() {
    let effective = Case::new()
        .variable("TENANTRY_URL", "http://x")
        .variable("TENANTRY_ADMIN_KEY", "k")
        .variable("TENANTRY_LISTEN", "")
        .variable("TENANTRY_PORT", "tcp://10.0.0.1:8080")
        .variable("TENANTRY_PORT_8080_TCP_ADDR", "10.0.0.1")
        .variable("TENANTRY_SERVICE_HOST", "10.0.0.1")
        .load();
    assert!(effective.leaves.iter().all(|leaf| leaf.origin == Origin::Default));
    let error = Case::new().variable("TENANTRY_PORT", "8080").error();
    assert!(error.contains("TENANTRY_PORT"), "a port a person set is not ignored: {error}");
}

#[test]
fn the_example_file_has_every_key_with_its_default() {
    let text = include_str!("../../../deploy/tenantry.example.toml");
    let uncommented: String = text.lines().filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' '))).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    let case = Case::new().file(&uncommented);
    let mut config = case.load().config;
    let expected = Case::new().load().config;
    assert!(config.tenants.migrations_dir.take().is_some() && config.telemetry.scrape_key.take().is_some());
    assert_eq!(config.auth.issuers.len(), 3, "one issuer for each source of keys");
    config.auth.issuers.clear();
    assert_eq!(config, Config { data_dir: case.dir.path().join("tenants"), ..expected });
    for key in keys::all() {
        let field = key.last().unwrap();
        assert!(uncommented.lines().any(|line| line.starts_with(&format!("{field} ="))), "{} is missing", key.join("."));
    }
}

#[test]
fn the_manual_describes_every_key() {
    let manual = include_str!("../../../docs/configuration.md");
    for key in keys::all() {
        let key = key.join(".");
        assert!(manual.lines().any(|line| line.starts_with(&format!("| `{key}`"))), "docs/configuration.md has no row for {key}");
    }
}
