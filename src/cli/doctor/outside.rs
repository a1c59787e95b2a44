//! The public addresses, as a browser reaches them: through the outer proxy, if there is one.

use super::Report;
use crate::{
    domain::{check::Finding, origins::ContentOrigin},
    service::Services,
    vault::{proof::Proofs, random},
    web::api::server::{BETWEEN_EVENTS, DOCTOR, EVENTS},
};
use reqwest::tls::TlsInfo;
use serde_json::Value;
use std::{
    error::Error as _,
    net::IpAddr,
    time::{Duration, Instant},
};
use url::Url;

const PAGE: &str = "Operator → Outer proxy";
const CONTENT_PAGE: &str = "Operator → Content origin";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an address answered.
struct Answer {
    status: u16,
    body: Value,
    /// The certificate, as DER.
    certificate: Option<Vec<u8>>,
}

/// A client that asks as a browser does.
fn client() -> Result<reqwest::Client, String> {
    builder().build().map_err(|error| cause(&error))
}

fn builder() -> reqwest::ClientBuilder {
    // HTTP/1.1, as browsers open WebSockets. No proxy: a browser of a viewer has none of this machine's.
    reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .tls_info(true)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
}

/// What the certificate of an address says that is not trusted. Nothing secret is sent there.
async fn untrusted_certificate(base: &str) -> Option<Finding> {
    if !base.starts_with("https:") {
        return None;
    }
    let client = builder().tls_danger_accept_invalid_certs(true).build();
    let answer = client.ok()?.get(format!("{base}/__ping__")).send().await;
    let answer = answer.ok()?;
    let der = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let ends = certificate.validity().not_after;
    let ended = if certificate.validity().time_to_expiration().is_none() {
        "ended"
    } else {
        "ends"
    };
    let (subject, issuer) = (certificate.subject(), certificate.issuer());
    Some(Finding::bad(
        "certificate_not_trusted",
        format!(
            "Browsers do not trust it: it is for {subject}, by {issuer}, and {ended} on {ends}."
        ),
        "Renew it, or install it with its whole chain, from an authority that your browsers trust.",
    ))
}

/// The headers of one request.
type Headers<'a> = &'a [(&'static str, &'a str)];

async fn ask(address: &str, headers: Headers<'_>) -> Result<Answer, String> {
    let mut request = client()?.get(address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.map_err(|error| cause(&error))?;
    let certificate = answer.extensions().get::<TlsInfo>();
    let certificate = certificate.and_then(|info| info.peer_certificate().map(<[u8]>::to_vec));
    let status = answer.status().as_u16();
    let body = answer.json().await.unwrap_or_default();
    Ok(Answer {
        status,
        body,
        certificate,
    })
}

/// The innermost reason of a failure: the outer ones only say that there is one.
fn cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text = error.to_string();
        inner = error.source();
    }
    text
}

/// A portal from a machine that has nothing of it.
pub async fn look_as_stranger(report: &mut Report, address: &Url) {
    let base = address.as_str().trim_end_matches('/');
    let Some(answer) = reached(report, base, &[]).await else {
        return;
    };
    let ready = answer.body.get("status").and_then(Value::as_str);
    let found = match ready {
        Some("ok") => Finding::good("ready", "A portal answers, and is ready."),
        Some(_) => Finding::bad(
            "not_ready",
            "A portal answers, and is not ready.",
            "Its operator runs valetkey doctor on the machine itself.",
        ),
        None => another_server(answer.status),
    };
    report.add(base, PAGE, found);
}

fn another_server(status: u16) -> Finding {
    Finding::bad(
        "another_server",
        format!("Something else answers there, with status {status}."),
        "Look where the name leads, and where the outer proxy sends requests.",
    )
}

/// Asks for readiness, and reports the connection and the certificate.
async fn reached(report: &mut Report, base: &str, headers: Headers<'_>) -> Option<Answer> {
    let answer = match ask(&format!("{base}/__health__"), headers).await {
        Ok(answer) => answer,
        Err(why) => {
            let fix = "Look at the name, the certificate, the firewall and the outer proxy.";
            let found = Finding::bad("unreachable", format!("It cannot be reached: {why}."), fix);
            report.add(base, PAGE, found.of("public_url"));
            if let Some(found) = untrusted_certificate(base).await {
                report.add(format!("certificate of {base}"), PAGE, found);
            }
            return None;
        }
    };
    if let Some(found) = answer.certificate.as_deref().and_then(certificate_end) {
        report.add(format!("certificate of {base}"), PAGE, found);
    }
    Some(answer)
}

/// When a certificate ends, counted from now.
fn certificate_end(der: &[u8]) -> Option<Finding> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let left = certificate.validity().time_to_expiration()?;
    let days = left.whole_days();
    let text = format!("It is trusted, and ends in {days} day(s).");
    Some(if days < 14 {
        Finding::warning("certificate_ends", text, "Renew it.")
    } else {
        Finding::good("certificate", text)
    })
}

/// The addresses of this installation.
pub async fn look(report: &mut Report, services: &Services) {
    let core = &services.core;
    let base = core.settings.base().trim_end_matches('/');
    let proofs = Proofs::new(&core.root);
    let challenge = proofs.challenge(core.now());
    if let Some(answer) = reached(report, base, &[(DOCTOR, &challenge)]).await {
        let seen = &answer.body["doctor"];
        let proof = seen["proof"].as_str().unwrap_or("");
        if proofs.is_answer(&challenge, proof) {
            let text = "A server of this installation answers.";
            report.add(base, PAGE, Finding::good("public_address", text));
            look_at_way(report, services, base, seen).await;
            report.add(base, PAGE, look_at_events(base, &challenge).await);
        } else {
            report.add(base, PAGE, another_server(answer.status).of("public_url"));
        }
    }
    let content = match &core.settings.origins.content {
        ContentOrigin::Unset => {
            let text = "Content is not served.";
            let fix = "Give content a host of its own.";
            let found = Finding::warning("no_content_host", text, fix).of("content_url");
            return report.add("content", CONTENT_PAGE, found);
        }
        ContentOrigin::Same => {
            let text =
                "Content shares the portal's host: an app can act there as whoever looks at it.";
            let fix = "Give content a host of its own.";
            let found = Finding::warning("same_origin", text, fix).of("content_url");
            return report.add("content", CONTENT_PAGE, found);
        }
        ContentOrigin::Shared { origin } => origin.clone(),
        // Any name: the wildcard leads all of them here, or none.
        ContentOrigin::Wildcard { scheme, suffix } => {
            format!(
                "{scheme}://doctor-{}{suffix}",
                random::bytes::<4>()
                    .map(|byte| format!("{byte:02x}"))
                    .concat()
            )
        }
    };
    let found = match ask(&format!("{content}/"), &[]).await {
        Ok(answer) if answer.status < 500 => {
            if let Some(found) = answer.certificate.as_deref().and_then(certificate_end) {
                report.add(format!("certificate of {content}"), CONTENT_PAGE, found);
            }
            Finding::good("content_host", "It is reached.")
        }
        Ok(answer) => Finding::bad(
            "content_host",
            format!("It answers with status {}.", answer.status),
            "Have the outer proxy send this host to the portal, too.",
        ),
        Err(why) => Finding::bad(
            "content_host",
            format!("It cannot be reached: {why}."),
            "Look at the name (for a wildcard: the record *.…), its certificate and the outer proxy.",
        ),
    };
    report.add(content, CONTENT_PAGE, found.of("content_url"));
}

/// Whether the outer proxy passes events on as they come.
async fn look_at_events(base: &str, challenge: &str) -> Finding {
    let fix = "nginx: proxy_buffering off; proxy_http_version 1.1; Caddy: flush_interval -1.";
    let bad = |why: String| {
        Finding::bad(
            "no_events",
            format!("Event streams do not arrive: {why}."),
            fix,
        )
    };
    let client = match client() {
        Ok(client) => client,
        Err(why) => return bad(why),
    };
    let request = client
        .get(format!("{base}/__health__?{EVENTS}"))
        .header(DOCTOR, challenge);
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return bad(cause(&error)),
    };
    let mut arrived = Vec::new();
    let mut text = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                text.extend_from_slice(&chunk);
                arrived.push(Instant::now());
            }
            Ok(None) => break,
            Err(error) => return bad(cause(&error)),
        }
    }
    if !text.ends_with(b"data: second\n\n") {
        return bad("something else was answered".to_owned());
    }
    let apart = match (arrived.first(), arrived.last()) {
        (Some(first), Some(last)) => last.duration_since(*first),
        _ => Duration::ZERO,
    };
    if apart < BETWEEN_EVENTS / 2 {
        return Finding::bad(
            "events_held_back",
            "The outer proxy holds event streams back until they end: apps that send one stay silent.",
            fix,
        );
    }
    Finding::good("events", "Event streams pass as they come.")
}

/// What the outer proxy makes of a request.
async fn look_at_way(report: &mut Report, services: &Services, base: &str, seen: &Value) {
    let is = |name: &str| seen[name].as_bool() == Some(true);
    // What wants to become a WebSocket goes to the apps, and there is none at this address. Without its
    // headers the request is an ordinary one, and is answered as such.
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let answer = ask(&format!("{base}/__health__"), &upgrade).await;
    let is_passed = answer.is_ok_and(|answer| answer.status == 404);
    if !is_passed {
        let found = Finding::bad(
            "no_upgrade",
            "The outer proxy does not pass WebSocket upgrades on: Streamlit and Shiny stay empty.",
            "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
        );
        report.add(base, PAGE, found);
    }
    let authority = base
        .split_once("://")
        .map_or(base, |(_, authority)| authority);
    let host = seen["host"].as_str().unwrap_or("");
    if !host.eq_ignore_ascii_case(authority) {
        let found = Finding::bad(
            "host_changed",
            format!("The outer proxy changes the host to “{host}”."),
            "nginx: proxy_set_header Host $http_host;",
        );
        report.add(base, PAGE, found);
    }
    let is_behind = base.starts_with("https:") && services.core.settings.tls.is_none();
    let peer = seen["peer"]
        .as_str()
        .and_then(|peer| peer.parse::<IpAddr>().ok());
    let trusted = &services.core.settings.trusted_proxies;
    let is_known = peer.is_some_and(|peer| trusted.iter().any(|net| net.contains(&peer)));
    let found = if is("forwarded") && !is_known {
        Some(Finding::warning(
            "proxy_not_trusted",
            format!(
                "A proxy at {} says for whom it asks, and is not trusted: all people count as one address.",
                seen["peer"].as_str().unwrap_or("an unknown address")
            ),
            "Add its address.",
        ))
    } else if is_behind && !is("forwarded") {
        Some(Finding::warning(
            "no_forwarded",
            "The outer proxy does not say for whom it asks: all people count as one address.",
            "nginx: proxy_set_header X-Forwarded-For $remote_addr;",
        ))
    } else {
        None
    };
    match found {
        Some(found) => report.add(base, PAGE, found.of("trusted_proxies")),
        None => {
            let text = "Host, client address and upgrades arrive as they should.";
            if is_passed && host.eq_ignore_ascii_case(authority) {
                report.add(base, PAGE, Finding::good("way", text));
            }
        }
    }
}
