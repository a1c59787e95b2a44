//! Operation: commands that only read make nothing, `serve` takes the settings that are typed most
//! often, readiness says what is missing, and what is measured names nobody.

use crate::harness::{Served, World, command};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_only_read_make_no_installation() {
    let folder = std::env::temp_dir().join(format!("valetkey-none-{}", uuid::Uuid::new_v4()));
    let settings = [(
        "VALETKEY_DATA_DIR".to_owned(),
        folder.to_string_lossy().into_owned(),
    )];
    let backup = folder.join("backup.db").to_string_lossy().into_owned();
    for arguments in [
        vec!["audit", "verify"],
        vec!["keys", "list"],
        vec!["keys", "verify"],
        vec!["admin", "link", "ada"],
        vec!["backup", &backup],
    ] {
        let ran = command(&arguments, &settings);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success(), "{arguments:?}");
        assert!(
            said.contains("no installation") || said.contains("no database"),
            "{arguments:?}: {said}"
        );
        assert!(!folder.exists(), "{arguments:?} made something");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_takes_its_address_and_folder_from_the_command_line() {
    let served = Served::prepare(&[("VALETKEY_LISTEN", "127.0.0.1:1")]);
    let folder = served.data_dir.join("elsewhere");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_valetkey"))
        .arg("serve")
        .args(["--listen", &served.address.to_string()])
        .args(["--data-dir", &folder.to_string_lossy()])
        .args(["--public-url", "http://portal.example.org"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let mut answered = false;
    for _ in 0..200 {
        answered = reqwest::get(format!("http://{}/__ping__", served.address))
            .await
            .is_ok_and(|answer| answer.status() == 200);
        if answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().expect("it runs");
    let said = std::io::read_to_string(child.stdout.take().expect("its output")).expect("text");
    drop(child.wait());
    assert!(answered);
    assert!(
        folder.join("keyring").exists(),
        "the folder of the command line"
    );
    assert!(said.contains("http://portal.example.org/setup/"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_has_a_word_for_each_thing() {
    let served = Served::start(&[]).await;
    let health = reqwest::get(format!("http://{}/__health__", served.address))
        .await
        .expect("an answer");
    assert_eq!(health.status(), 200);
    let body: serde_json::Value = health.json().await.expect("JSON");
    let words: Vec<&str> = body
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    for name in [
        "status", "reads", "writes", "keyring", "clock", "changes", "disk", "stopping",
    ] {
        assert!(words.contains(&name), "{body}");
    }
    for name in ["status", "reads", "writes", "keyring", "clock", "stopping"] {
        assert_eq!(body[name], json!("ok"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_or_cannot_write_is_not_ready() {
    let world = World::start().await;
    world.services.health.has_written();
    let word = async |name: &str| {
        let report = world.services.health.report().await;
        let found = report.into_iter().find(|(known, _)| *known == name);
        found.expect("it").1.as_str()
    };
    assert_eq!(word("writes").await, "ok");
    // No heartbeat for a while: nothing can be written.
    world.pass(Duration::from_secs(60));
    assert_eq!(word("writes").await, "fails");
    world.services.health.drain();
    assert_eq!(word("stopping").await, "yes");
    let answer = reqwest::get(format!("{}/__health__", world.portal))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_on_a_listener_of_its_own_and_names_nobody() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let mut served = Served::start(&[("VALETKEY_METRICS_LISTEN", &address.to_string())]).await;
    let key = served.administrator("ada");
    let asked = served.api(&key, "GET", "v1/content", "").await;
    assert_eq!(asked.status, 200);
    let text = reqwest::get(format!("http://{address}/metrics"))
        .await
        .expect("metrics")
        .text()
        .await
        .expect("text");
    for name in [
        "valetkey_build_info{version=",
        "valetkey_ready 1",
        "valetkey_database_wait_seconds_bucket",
        "valetkey_grants_lost_total 0",
        "valetkey_open_sockets 0",
        "valetkey_leak_alarms_total 0",
        "valetkey_refreshes_in_flight 0",
        "valetkey_password_checks 0",
        "valetkey_disk_free_ratio 0.",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("ada"), "{text}");
    // Not on the portal's own port.
    let own = reqwest::get(format!("http://{}/metrics", served.address))
        .await
        .expect("an answer");
    assert_eq!(own.status(), 404);
    served.terminate();
}

/// The lines of `valetkey doctor --json`, as sign, place and code.
fn doctor(
    arguments: &[&str],
    settings: &[(String, String)],
) -> (bool, Vec<(String, String, String)>) {
    let mut all = vec!["doctor", "--json"];
    all.extend(arguments);
    let ran = command(&all, settings);
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&ran.stdout).expect("a JSON array");
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or("").to_owned();
    let lines = lines
        .iter()
        .map(|line| (text(line, "verdict"), text(line, "at"), text(line, "code")))
        .collect();
    (ran.status.success(), lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_recognises_its_own_server_and_says_what_is_wrong() {
    let served = Served::start(&[]).await;
    let codes = |lines: &[(String, String, String)], verdict: &str| -> Vec<String> {
        let found = lines.iter().filter(|line| line.0 == verdict);
        found.map(|line| line.2.clone()).collect()
    };
    // Where no uv and no sandbox is, that is all it finds.
    let settings = served.settings_with(&[("VALETKEY_RUN_CONTENT", "off")]);
    let (is_well, lines) = doctor(&[], &settings);
    assert!(is_well, "{lines:?}");
    for wanted in ["settings", "database", "nodes", "public_address", "way"] {
        assert!(
            codes(&lines, "good").contains(&wanted.to_owned()),
            "{wanted}: {lines:?}"
        );
    }

    // Another installation answers at the public address.
    let other = Served::start(&[]).await;
    let settings = served.settings_with(&[
        ("VALETKEY_RUN_CONTENT", "off"),
        ("VALETKEY_PUBLIC_URL", &format!("http://{}", other.address)),
    ]);
    let (is_well, lines) = doctor(&[], &settings);
    assert!(!is_well);
    assert_eq!(codes(&lines, "bad"), ["another_server"], "{lines:?}");
    // To a stranger it is as good as any.
    let address = format!("http://{}", other.address);
    let (is_well, lines) = doctor(&["--as-outsider", &address], &[]);
    assert!(is_well, "{lines:?}");

    // A copy of the data directory has the identity of the server that runs.
    let (original, copy) = (&served.data_dir, served.data_dir.join("copy"));
    std::fs::create_dir(&copy).expect("a folder");
    std::fs::copy(original.join("node"), copy.join("node")).expect("a copy");
    for name in ["valetkey.db", "keyring"] {
        if original.join(name).exists() {
            std::os::unix::fs::symlink(original.join(name), copy.join(name)).expect("a link");
        }
    }
    let settings = served.settings_with(&[
        ("VALETKEY_RUN_CONTENT", "off"),
        ("VALETKEY_DATA_DIR", &copy.to_string_lossy()),
    ]);
    let (_, lines) = doctor(&[], &settings);
    assert!(
        codes(&lines, "warning").contains(&"duplicate_identity".to_owned()),
        "{lines:?}"
    );

    // A certificate that no browser trusts is told by its name and its end.
    let secure = Served::start_self_signed().await;
    let address = format!("https://{}", secure.address);
    let (is_well, lines) = doctor(&["--as-outsider", &address], &[]);
    assert!(!is_well);
    assert_eq!(
        codes(&lines, "bad"),
        ["unreachable", "certificate_not_trusted"],
        "{lines:?}"
    );

    // Nothing is there: nothing is made, and nothing is stored.
    let nowhere = served.data_dir.join("nowhere");
    let settings = [(
        "VALETKEY_DATA_DIR".to_owned(),
        nowhere.to_string_lossy().into_owned(),
    )];
    let (is_well, lines) = doctor(&[], &settings);
    assert!(!is_well);
    assert!(
        codes(&lines, "bad").contains(&"database".to_owned()),
        "{lines:?}"
    );
    assert!(!nowhere.exists());
    let (is_well, lines) = doctor(&[], &[("VALETKEY_NO_SUCH".to_owned(), "1".to_owned())]);
    assert!(!is_well);
    assert_eq!(codes(&lines, "bad"), ["settings"], "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_to_come_back_over_https_only_where_that_is_the_address() {
    let secure = Served::start_self_signed().await;
    let client = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .build()
        .expect("a client");
    let told = async |address: String| {
        let answer = client.get(address).send().await.expect("an answer");
        let header = answer.headers().get("strict-transport-security");
        header.map(|value| value.to_str().expect("text").to_owned())
    };
    let port = secure.address.port();
    for path in ["login", "__ping__", "content/none/"] {
        let header = told(format!("https://localhost:{port}/{path}")).await;
        assert_eq!(header.as_deref(), Some("max-age=31536000"), "{path}");
    }
    let plain = Served::start(&[]).await;
    assert_eq!(told(format!("http://{}/login", plain.address)).await, None);
}
