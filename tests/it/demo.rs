//! `tenantry demo --exit`: a server, a few tenants, a front end's calls, told readably; also on old data.

use std::process::Output;

use crate::support::*;

fn demo(dir: &std::path::Path) -> Output {
    let mut command = binary();
    command.args(["demo", "--exit", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data"));
    command.current_dir(dir).env("NO_COLOR", "1").output().unwrap()
}

#[test]
fn the_demo_runs_and_runs_again_on_the_same_data() {
    let home = tempfile::tempdir().unwrap();
    for round in ["first", "second"] {
        let output = demo(home.path());
        let text = said(&output);
        assert!(output.status.success(), "{round} run: {text}");
        for word in ["acme", "globex", "initech", "curl", "Authorization: Bearer"] {
            assert!(text.contains(word), "{round} run says nothing of {word}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn the_demo_serves_until_it_is_stopped() {
    let home = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["demo", "--listen", "127.0.0.1:0", "--data-dir"]).arg(home.path().join("data")).current_dir(home.path());
    let log = std::fs::File::create(home.path().join("said")).unwrap();
    let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let said = || std::fs::read_to_string(home.path().join("said")).unwrap();
    let address = eventually("the demo names its address", || {
        let text = said();
        let from = text.find("http://127.0.0.1:")?;
        let port: String = text[from..].trim_start_matches("http://127.0.0.1:").chars().take_while(char::is_ascii_digit).collect();
        (text.contains("curl") && !port.is_empty()).then(|| format!("http://127.0.0.1:{port}"))
    });
    let mut answer = ureq::get(format!("{address}/readyz")).call().unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.body_mut().read_to_string());
    assert!(child.try_wait().unwrap().is_none(), "it goes on serving: {}", said());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = eventually("Ctrl-C ends it", || child.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", said());
}
