//! Writes that depend on what is there.

use super::{has, path, put, put_with};
use crate::support::{Answer, Server, TenantClient, at_once, eventually};

fn put_if(tenant: &TenantClient, key: &str, header: &str, etag: &str, value: &str) -> Answer {
    tenant.call("PUT", &path(key)).header(header, etag).bytes("text/plain", value).send()
}

#[test]
fn of_many_who_add_one_does() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let answers = at_once(8, |n| put_if(&tenant, "k", "If-None-Match", "*", &n.to_string()));
    let added: Vec<_> = (0..8).filter(|&n| answers[n].status == 204).collect();
    assert_eq!(added.len(), 1);
    assert!(answers.iter().all(|answer| [204, 412].contains(&answer.status)));
    assert_eq!(tenant.get(&path("k")).expect(200).text(), added[0].to_string());
    let etag = tenant.get(&path("k")).header("etag").unwrap().to_owned();
    let error = put_if(&tenant, "k", "If-None-Match", "*", "late").refused(412, "precondition_failed");
    assert_eq!(error["details"]["etag"], etag.as_str());
}

#[test]
fn what_has_expired_or_is_known_not_to_exist_can_be_added() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    tenant.call("PUT", &format!("{}?absent=true", path("absent"))).send().expect(204);
    put_if(&tenant, "absent", "If-None-Match", "*", "v").expect(204);
    put_with(&tenant, "expiring", "ttl=1&swr=3600");
    eventually("it expires", || (put_if(&tenant, "expiring", "If-None-Match", "*", "v").status == 204).then_some(()));
}

#[test]
fn swapping_loses_no_update() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"0");
    at_once(4, |_| {
        for _ in 0..10 {
            eventually("a swap succeeds", || {
                let now = tenant.get(&path("k")).expect(200);
                let next = now.text().parse::<u32>().unwrap() + 1;
                let swapped = put_if(&tenant, "k", "If-Match", now.header("etag").unwrap(), &next.to_string());
                assert!([204, 412].contains(&swapped.status));
                (swapped.status == 204).then_some(())
            });
        }
    });
    assert_eq!(tenant.get(&path("k")).text(), "40");
}

#[test]
fn if_match_fits_what_is_there_and_nothing_else() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_if(&tenant, "k", "If-Match", "*", "v").refused(412, "precondition_failed");
    assert!(!has(&tenant, "k"));
    let etag = put_with(&tenant, "k", "").header("etag").unwrap().to_owned();
    put_if(&tenant, "k", "If-Match", "\"1-1\"", "v").refused(412, "precondition_failed");
    put_if(&tenant, "k", "If-None-Match", &etag, "v").refused(412, "precondition_failed");
    put_if(&tenant, "k", "If-Match", "*", "two").expect(204);
    let remove = |etag: &str| tenant.call("DELETE", &path("k")).header("If-Match", etag).send();
    remove(&etag).refused(412, "precondition_failed");
    assert!(has(&tenant, "k"));
    let now = tenant.get(&path("k")).header("etag").unwrap().to_owned();
    remove(&now).expect(204);
    assert!(!has(&tenant, "k"));
}
