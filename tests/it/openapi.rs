//! `GET /openapi.json` and the route table say the same.

use std::collections::BTreeSet;

use crate::support::*;

#[test]
fn every_route_is_described_and_nothing_else() {
    let server = Server::shared();
    let document = server.anyone().get("/openapi.json").expect(200).json();
    assert_eq!(document["openapi"].as_str().map(|version| &version[..4]), Some("3.1."));
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods =
                item.as_object().unwrap().keys().filter(|key| ["get", "put", "post", "patch", "delete", "head"].contains(&key.as_str()));
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let routed: BTreeSet<_> = tenantry::http::ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    let invented: Vec<_> = described.difference(&routed).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:#?}\nnot routed: {invented:#?}");
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let server = Server::shared();
    let document = server.anyone().get("/openapi.json").expect(200).json();
    let mut stack = vec![&document];
    let mut seen = 0;
    while let Some(value) = stack.pop() {
        if let Some(target) = value["$ref"].as_str() {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            seen += 1;
        }
        match value {
            Value::Object(fields) => stack.extend(fields.values()),
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(seen > 10, "{seen} references");
}

#[test]
fn every_error_code_is_in_the_document() {
    let server = Server::shared();
    let text = server.anyone().get("/openapi.json").expect(200).text();
    for code in tenantry::error::Code::ALL {
        assert!(text.contains(&format!("\"{}\"", code.as_str())), "{}", code.as_str());
    }
}
