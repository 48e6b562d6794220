//! Every way a token can be wrong, with real keys. Each case changes one thing about a token that is taken
//! otherwise, so a case fails when the thing it names stops being checked.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn alg_none_is_refused_in_any_case() {
    let world = world();
    for alg in ["none", "None", "NONE", "nOnE", "none ", ""] {
        for signature in ["", "AA", "bm9uZQ"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
            let payload = URL_SAFE_NO_PAD.encode(good().to_string());
            assert!(world.at(&format!("{header}.{payload}.{signature}"), NOW).await.is_err(), "{alg:?} {signature:?}");
        }
    }
    for alg in [json!(null), json!(["RS256"]), json!(256), json!({"x": "RS256"})] {
        assert!(world.header(json!({"alg": alg, "kid": "r"}), &rsa(), Algorithm::RS256).await.is_err());
    }
    assert!(world.header(json!({"kid": "r"}), &rsa(), Algorithm::RS256).await.is_err());
}

#[tokio::test]
async fn a_public_key_is_not_taken_for_a_secret() {
    let world = world();
    let jwk = jwk(&rsa(), Algorithm::RS256, "r");
    let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let lines: String = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&lines).unwrap();
    let secrets = [
        RSA_PUBLIC.as_bytes().to_vec(),
        RSA_PUBLIC.trim_end().as_bytes().to_vec(),
        lines.into_bytes(),
        der,
        n,
        jwk.to_string().into_bytes(),
    ];
    for secret in secrets {
        for header in [json!({"alg": "HS256", "kid": "r"}), json!({"alg": "HS256"}), json!({"alg": "RS256", "kid": "r"})] {
            assert!(world.header(header, &EncodingKey::from_secret(&secret), Algorithm::HS256).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_key_verifies_only_with_its_own_algorithm_and_under_its_own_name() {
    let world = world();
    for (alg, kid) in
        [("ES256", "r"), ("EdDSA", "r"), ("PS256", "r"), ("RS384", "r"), ("RS512", "r"), ("HS256", "r"), ("rs256", "r"), ("RS256", "e")]
    {
        assert!(world.header(json!({"alg": alg, "kid": kid}), &rsa(), Algorithm::RS256).await.is_err(), "{alg} {kid}");
    }
    for alg in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        assert!(world.header(json!({"alg": "RS256", "kid": "r"}), &rsa(), alg).await.is_err());
        assert!(world.header(json!({"alg": format!("{alg:?}"), "kid": "r"}), &rsa(), alg).await.is_err());
    }
    let other = EncodingKey::from_ed_pem(ED_OTHER.as_bytes()).unwrap();
    assert!(world.header(json!({"alg": "EdDSA", "kid": "d"}), &other, Algorithm::EdDSA).await.is_err());
}

#[tokio::test]
async fn a_kid_is_only_ever_compared() {
    let world = world();
    let kids = ["../../../../dev/null", "/etc/passwd", "r' OR '1'='1", "r\u{0}", "R", " r", "", "http://127.0.0.1:1/", "r;ls"];
    for kid in kids.map(str::to_owned).into_iter().chain(["k".repeat(300)]) {
        assert!(world.header(json!({"alg": "RS256", "kid": kid}), &rsa(), Algorithm::RS256).await.is_err(), "{kid}");
    }
    for kid in [json!(null), json!(["r"]), json!(1)] {
        assert!(world.header(json!({"alg": "RS256", "kid": kid}), &rsa(), Algorithm::RS256).await.is_err());
    }
    // An empty secret, as read from /dev/null, signs nothing either.
    let empty = EncodingKey::from_secret(b"");
    assert!(world.header(json!({"alg": "HS256", "kid": "../../dev/null"}), &empty, Algorithm::HS256).await.is_err());
}

#[tokio::test]
async fn a_token_cannot_bring_its_own_key_and_nobody_is_called() {
    let world = world();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let other = EncodingKey::from_ed_pem(ED_OTHER.as_bytes()).unwrap();
    let own = jwk(&other, Algorithm::EdDSA, "d");
    for (name, value) in [("jwk", own), ("jku", json!(url)), ("x5u", json!(url)), ("x5c", json!(["MIIB"]))] {
        for kid in ["d", "mine"] {
            let header = json!({"alg": "EdDSA", "kid": kid, name: value});
            assert!(world.header(header, &other, Algorithm::EdDSA).await.is_err(), "{name}");
        }
        // Beside a signature that holds, they are nothing.
        assert!(world.header(json!({"alg": "EdDSA", "kid": "d", name: value}), &ed(), Algorithm::EdDSA).await.is_ok(), "{name}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(world.header(json!({"alg": "EdDSA", "kid": "d", "crit": ["b64"], "b64": true}), &ed(), Algorithm::EdDSA).await.is_err());
    assert!(world.header(json!({"alg": "EdDSA", "kid": "d", "crit": []}), &ed(), Algorithm::EdDSA).await.is_err());
}

#[tokio::test]
async fn exp_is_a_number_of_seconds_and_the_leeway_is_all_there_is() {
    let world = world();
    assert!(world.payload(|p| drop(p.as_object_mut().unwrap().remove("exp"))).await.is_err());
    for exp in [
        "\"1795214700\"",
        "1e400",
        "-1e400",
        "-1",
        "9223372036854775807",
        "9223372036854775807.5",
        "1e19",
        "null",
        "true",
        "[1795214700]",
        "0",
    ] {
        assert!(world.text(&spelled("exp", exp)).await.is_err(), "{exp}");
    }
    let leeway = world.config.leeway_s as i64;
    assert!(world.payload(|p| p["exp"] = (NOW - leeway + 1).into()).await.is_ok());
    assert_eq!(world.payload(|p| p["exp"] = (NOW - leeway).into()).await, Err("it has expired"));
}

#[tokio::test]
async fn nbf_is_a_number_that_has_come() {
    let world = world();
    let leeway = world.config.leeway_s as i64;
    assert!(world.payload(|p| p["nbf"] = (NOW + leeway).into()).await.is_ok());
    assert!(world.payload(|p| drop(p.as_object_mut().unwrap().remove("nbf"))).await.is_ok());
    assert_eq!(world.payload(|p| p["nbf"] = (NOW + leeway + 1).into()).await, Err("it is not valid yet"));
    for nbf in ["\"1795214000\"", "null", "1e400", "[]", "-1"] {
        assert!(world.text(&spelled("nbf", nbf)).await.is_err(), "{nbf}");
    }
}

#[tokio::test]
async fn audience_and_issuer_are_there_and_exact() {
    let world = world();
    for claim in ["aud", "iss"] {
        assert!(world.payload(|p| drop(p.as_object_mut().unwrap().remove(claim))).await.is_err(), "no {claim}");
    }
    for aud in [json!("API"), json!("api "), json!(""), json!([]), json!(["other"]), json!({"api": 1}), json!(null), json!([["api"]])] {
        assert_eq!(world.payload(|p| p["aud"] = aud).await, Err("aud is missing or another"));
    }
    for iss in [
        json!("https://idp.example"),
        json!("https://IDP.example/"),
        json!("tenantry"),
        json!("hs"),
        json!(["https://idp.example/"]),
        json!(null),
    ] {
        assert!(world.payload(|p| p["iss"] = iss).await.is_err());
    }
}

#[tokio::test]
async fn the_tenant_claim_is_one_canonical_uuid_under_exactly_its_name() {
    let world = world();
    let named = async |name: &str| {
        let text = good().to_string().replace("\"tenant_id\"", &format!("\"{name}\""));
        world.text(&text).await
    };
    assert!(named("tenant_id").await.is_ok());
    for name in ["Tenant_ID", "TENANT_ID", "tenant_id ", "tenаnt_id", "tenant_id\\u200b", "tenantId"] {
        assert_eq!(named(name).await, Err("no tenant claim that is a UUID"), "{name}");
    }
    let upper = TENANT.to_uppercase();
    let values = [
        json!([TENANT]),
        json!(null),
        json!({"id": TENANT}),
        json!(7),
        json!(upper),
        json!(TENANT.replace('-', "")),
        json!(format!("{{{TENANT}}}")),
    ];
    let texts = ["../x", "..%2f", "%00", "file:x?mode=memory", ":memory:", "", "\u{0}"].map(|text| json!(text));
    for value in values.into_iter().chain(texts).chain([json!("a".repeat(300)), json!(TENANT.replace('a', "а"))]) {
        assert_eq!(world.payload(|p| p["tenant_id"] = value.clone()).await, Err("no tenant claim that is a UUID"), "{value}");
    }
    let other = "019391f4-8a2b-7c3d-9e4f-000000000000";
    for twice in [format!("\"tenant_id\":\"{other}\","), format!("\"tenant\\u005fid\":\"{other}\",")] {
        let text = good().to_string().replacen('{', &format!("{{{twice}"), 1);
        assert_eq!(world.text(&text).await, Err("the payload is not strict JSON"));
    }
}

#[tokio::test]
async fn sub_and_role_are_bounded_text() {
    let world = world();
    assert!(world.payload(|p| drop(p.as_object_mut().unwrap().remove("sub"))).await.is_err());
    for sub in [json!(""), json!(7), json!(null), json!("s".repeat(257))] {
        assert!(world.payload(|p| p["sub"] = sub).await.is_err());
    }
    for role in [json!(""), json!(null), json!(["admin"]), json!("r".repeat(65))] {
        assert!(world.payload(|p| p["role"] = role).await.is_err());
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let world = world();
    let token = world.minted().token;
    let (header, rest) = token.split_once('.').unwrap();
    let duplicate = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","alg":"EdDSA"}"#);
    let cases = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "x".into(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.AA"),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        rest.to_owned(),
        header.to_owned(),
        format!("{duplicate}.{rest}"),
        "é.é.é".into(),
        "a".repeat(9_000),
        token.replace('.', "。"),
    ];
    for case in cases {
        assert!(world.at(&case, clock::now_s()).await.is_err(), "{case}");
    }
    let deep = spelled("x", &format!("{}{}", "[".repeat(2_000), "]".repeat(2_000)));
    assert_eq!(world.text(&deep).await, Err("the payload is not strict JSON"));
}

#[tokio::test]
async fn every_refusal_is_the_same_error() {
    let world = world();
    let expired = signed(&json!({"alg": "ES256", "kid": "e"}), &spelled("exp", "1"), &ec(), Algorithm::ES256);
    let mut answers: Vec<String> = Vec::new();
    for token in ["", "x", &expired, &format!("{}A", world.minted().token)] {
        let error = world.verifier.verify(token).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        answers.push(error.to_json().to_string());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[test]
fn a_valid_token_with_one_byte_changed_never_verifies() {
    let world = world();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hs = good().to_string().replace("https://idp.example/", "hs");
    let tokens = [
        world.minted().token,
        signed(&json!({"alg": "RS256", "kid": "r"}), &good().to_string(), &rsa(), Algorithm::RS256),
        signed(&json!({"alg": "ES256", "kid": "e"}), &good().to_string(), &ec(), Algorithm::ES256),
        signed(&json!({"alg": "HS256"}), &hs, &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256),
    ];
    let now = [clock::now_s(), NOW, NOW, NOW];
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() });
    let change = (0..tokens.len(), any::<prop::sample::Index>(), 0u8..128, 0u8..3);
    runner
        .run(&change, |(which, at, byte, how)| {
            let mut bytes = tokens[which].clone().into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            let changed = String::from_utf8(bytes).unwrap();
            prop_assume!(changed != tokens[which]);
            prop_assert!(runtime.block_on(world.at(&changed, now[which])).is_err(), "{}", changed);
            Ok(())
        })
        .unwrap();
    for (token, now) in tokens.iter().zip(now) {
        runtime.block_on(world.at(token, now)).unwrap();
        // The last character carries spare bits, which must be zero.
        for last in 33..127u8 {
            let changed = format!("{}{}", &token[..token.len() - 1], char::from(last));
            assert_eq!(runtime.block_on(world.at(&changed, now)).is_ok(), changed == *token);
        }
    }
}
