//! The proxy on the wire: HTTP/1.1 with raw sockets on both sides, since every library would hide
//! what is looked at.

use crate::{
    harness::{Browser, World},
    stage::{SOON, Stage, app, says, socket, socket_app, until},
};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_at_once_without_being_collected() {
    let stage = Stage::new().await;
    let echo = app(|mut socket, _| async move {
        let head = until(&mut socket, "\r\n\r\n").await;
        assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Chunk by chunk, back as they come.
        loop {
            let size = until(&mut socket, "\r\n").await;
            let Ok(size) = usize::from_str_radix(size.trim(), 16) else { return };
            let mut data = vec![0; size + 2];
            if socket.read_exact(&mut data).await.is_err() {
                return;
            }
            let _ = socket.write_all(format!("{size:x}\r\n").as_bytes()).await;
            let _ = socket.write_all(&data).await;
            if size == 0 {
                return;
            }
        }
    })
    .await;
    stage.behind(&echo).await;
    let mut socket = stage.connect().await;
    socket
        .write_all(
            format!(
                "{}Transfer-Encoding: chunked\r\n\r\n",
                stage.head("POST", "", "")
            )
            .as_bytes(),
        )
        .await
        .expect("a head");
    let head = until(&mut socket, "\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "the answer begins before the request has ended: {head}"
    );
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        socket
            .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await
            .expect("a chunk");
        let back = until(&mut socket, event).await;
        assert!(
            back.ends_with(event),
            "each event is passed on before the next one is there: {back}"
        );
    }
    socket.write_all(b"0\r\n\r\n").await.expect("the end");
    assert!(until(&mut socket, "0\r\n\r\n").await.ends_with("0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_whole_with_their_length() {
    let stage = Stage::new().await;
    let count = app(|mut socket, _| async move {
        let head = until(&mut socket, "\r\n\r\n").await.to_ascii_lowercase();
        let length: usize = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse().ok())
            .unwrap_or(0);
        assert!(!head.contains("expect"), "{head}");
        let (mut left, mut sum, mut buffer) = (length, 0_u64, vec![0; 1 << 16]);
        while left > 0 {
            let read = socket.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                break;
            }
            left -= read;
            sum += buffer[..read]
                .iter()
                .map(|byte| u64::from(*byte))
                .sum::<u64>();
        }
        let said = format!("{} {sum}", length - left);
        let _ = socket
            .write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}",
                    said.len()
                )
                .as_bytes(),
            )
            .await;
    })
    .await;
    stage.behind(&count).await;
    let piece: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let pieces = 64;
    let mut socket = stage.connect().await;
    let head = format!(
        "{}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        stage.head("PUT", "up", ""),
        piece.len() * pieces
    );
    socket.write_all(head.as_bytes()).await.expect("a head");
    assert!(
        until(&mut socket, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 100"),
        "whoever waits to be asked is asked"
    );
    for _ in 0..pieces {
        socket.write_all(&piece).await.expect("a piece");
    }
    let sum = piece.iter().map(|byte| u64::from(*byte)).sum::<u64>() * pieces as u64;
    let said = format!("{} {sum}", piece.len() * pieces);
    let answer = until(&mut socket, &said).await;
    assert!(answer.ends_with(&said), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_stay_here_and_trailers_go_to_whoever_takes_them() {
    let stage = Stage::new().await;
    let (app, heads) = says(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\nX-Sum: abc\r\nSet-Cookie: valetkey=stolen\r\nContent-Length: 7\r\nConnection: x\r\n\r\n",
    )
    .await;
    stage.behind(&app).await;
    let plain = stage.ask("GET", "", "", "").await;
    assert!(
        plain.starts_with("HTTP/1.1 200")
            && plain.ends_with("0\r\n\r\n")
            && !plain.contains("X-Sum: abc"),
        "{plain}"
    );
    let full = stage.ask("GET", "", "TE: trailers\r\n", "").await;
    assert!(
        full.starts_with("HTTP/1.1 200") && full.contains("5\r\nhello\r\n0\r\nx-sum: abc\r\n\r\n"),
        "{full}"
    );
    assert!(
        full.contains("trailer: X-Sum") && full.matches("transfer-encoding").count() == 1,
        "{full}"
    );
    assert!(
        !full.contains("stolen") && !full.to_ascii_lowercase().contains("content-length"),
        "{full}"
    );
    let heads = heads.lock().expect("heads").clone();
    assert!(
        !heads[0].contains("te:") && heads[1].contains("te: trailers\r\n"),
        "{heads:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_is_not_sure_is_never_taken_for_whole() {
    let stage = Stage::new().await;
    // Odd from the head on: a page of ours instead.
    for odd in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let (app, _) = says(odd).await;
        stage.behind(&app).await;
        let answer = stage.ask("GET", "", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{}: {answer}", String::from_utf8_lossy(odd));
        assert!(!answer.contains("hello"), "{answer}");
    }
    // Broken in the middle: the browser sees a broken answer, too.
    for broken in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: a",
    ] {
        let cut = app(move |mut socket, _| async move {
            until(&mut socket, "\r\n\r\n").await;
            let _ = socket.write_all(broken).await;
        })
        .await;
        stage.behind(&cut).await;
        let answer = stage.ask("GET", "", "", "").await;
        let whole = answer.ends_with("0\r\n\r\n") || answer.contains("content-length: 5\r\n");
        assert!(!whole, "{}: {answer}", String::from_utf8_lossy(broken));
    }
    // Without a length the end of the connection is the end (RFC 9112 section 6.3).
    let closes = app(|mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await;
    })
    .await;
    stage.behind(&closes).await;
    let answer = stage.ask("GET", "", "", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200")
            && answer.contains("hello")
            && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
    // Heads without end are not collected for ever.
    let endless = app(|mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while socket
            .write_all(format!("X-{}: y\r\n", "z".repeat(1000)).as_bytes())
            .await
            .is_ok()
        {}
    })
    .await;
    stage.behind(&endless).await;
    assert!(
        stage
            .ask("GET", "", "", "")
            .await
            .starts_with("HTTP/1.1 502")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_and_no_request_that_changes_something_is_sent_twice() {
    let stage = Stage::new().await;
    let seen: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let app = app(move |mut socket, number| {
        let keep = Arc::clone(&keep);
        async move {
            for turn in 0.. {
                let head = until(&mut socket, "\r\n\r\n").await;
                if head.is_empty() {
                    return;
                }
                keep.lock().expect("a list").push((
                    number,
                    head.split(' ').take(2).collect::<Vec<_>>().join(" "),
                ));
                // Says nothing to this one, as an app that falls over.
                if head.contains("/fall") || (head.contains("/once") && turn > 0) {
                    return;
                }
                let _ = socket
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    stage.behind(&app).await;
    // One connection of the browser's, so that one worker carries all of it.
    let mut browser = stage.connect().await;
    let mut ask = async |method: &str, path: &str, body: &str| {
        let length = if method == "POST" {
            format!("Content-Length: {}\r\n", body.len())
        } else {
            String::new()
        };
        let request = format!("{}\r\n{body}", stage.head(method, path, &length));
        browser
            .write_all(request.as_bytes())
            .await
            .expect("a request");
        let head = until(&mut browser, "\r\n\r\n").await;
        let length: usize = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        browser.read_exact(&mut body).await.expect("a body");
        head.split(' ').nth(1).unwrap_or("").to_owned()
    };
    for _ in 0..3 {
        assert_eq!(ask("GET", "a", "").await, "200");
    }
    assert!(
        seen.lock()
            .expect("a list")
            .iter()
            .all(|(number, _)| *number == 0),
        "one connection: {seen:?}"
    );
    // The app closes the used connection in the moment of the request: reading again does no harm.
    assert_eq!(ask("GET", "once", "").await, "200");
    let sent = |what: &str| {
        seen.lock()
            .expect("a list")
            .iter()
            .filter(|(_, line)| line.contains(what))
            .count()
    };
    assert_eq!(sent("/once"), 2, "{seen:?}");
    assert_eq!(ask("GET", "fall", "").await, "502");
    assert!(sent("/fall") <= 2, "once more at most: {seen:?}");
    // Changing something twice would.
    for _ in 0..3 {
        // On a connection that was used before: only there could it be repeated.
        assert_eq!(ask("GET", "a", "").await, "200");
        let before = sent("POST");
        assert_eq!(ask("POST", "fall", "x=1").await, "502");
        assert_eq!(sent("POST"), before + 1, "{seen:?}");
        let lines = seen.lock().expect("a list").clone();
        let [.., (used, _), (posted, _)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(used, posted, "the POST went over the used connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_past_the_head_of_another() {
    let stage = Stage::new().await;
    let (app, heads) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    stage.behind(&app).await;
    let inner = stage.head("GET", "smuggled", "");
    let outer = |fields: &str| stage.head("POST", "outer", fields);
    let chunked = format!("0\r\n\r\n{inner}\r\n");
    for (what, bytes) in [
        (
            "CL.TE",
            format!(
                "{}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}",
                outer(""),
                chunked.len()
            ),
        ),
        (
            "TE.CL",
            format!(
                "{}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
                outer(""),
                inner.len()
            ),
        ),
        (
            "TE.TE",
            format!(
                "{}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{chunked}",
                outer("")
            ),
        ),
        (
            "TE, spelled oddly",
            format!(
                "{}Transfer-Encoding: \x0bchunked\r\n\r\n{chunked}",
                outer("")
            ),
        ),
        (
            "TE with a blank before the colon",
            format!(
                "{}Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n{chunked}",
                outer("")
            ),
        ),
        (
            "a folded TE",
            format!(
                "{}Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n{chunked}",
                outer("")
            ),
        ),
        (
            "two lengths",
            format!(
                "{}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}\r\n",
                outer(""),
                inner.len() + 2
            ),
        ),
        (
            "a bare CR in a field",
            format!(
                "{}X: a\rTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}",
                outer("")
            ),
        ),
    ] {
        let mut socket = stage.connect().await;
        socket.write_all(bytes.as_bytes()).await.expect("bytes");
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{what}: {answer}");
        let heads = heads.lock().expect("heads").clone();
        assert!(
            heads.iter().all(|head| !head.contains("smuggled")),
            "{what}: {heads:?}"
        );
    }
    // Bare line feeds are read, since actix reads them, and never written: an app gets one request,
    // built anew.
    let mut socket = stage.connect().await;
    let loose =
        format!("{}X-Loose: 1\r\n\r\n", stage.head("GET", "loose", "")).replace("\r\n", "\n");
    socket.write_all(loose.as_bytes()).await.expect("bytes");
    let answer = until(&mut socket, "ok").await;
    let heads = heads.lock().expect("heads").clone();
    let loose: Vec<_> = heads
        .iter()
        .filter(|head| head.contains("/loose"))
        .collect();
    match answer.split(' ').nth(1) {
        Some("200") => assert!(
            loose.len() == 1 && loose[0].matches('\n').count() == loose[0].matches("\r\n").count(),
            "{loose:?}"
        ),
        other => assert!(
            loose.is_empty() && other.is_none_or(|status| status.starts_with('4')),
            "{answer}"
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_clients_early_answers_and_long_ones() {
    let stage = Stage::new().await;
    let slow = app(|mut socket, _| async move {
        let head = until(&mut socket, "\r\n\r\n").await;
        if head.contains("/early") {
            // Has seen enough of the upload, and reads no more.
            let _ = socket
                .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
                .await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
                .await;
        }
    })
    .await;
    stage.behind(&slow).await;
    // A client that has said all that it has to say.
    let mut socket = stage.connect().await;
    socket
        .write_all(format!("{}\r\n", stage.head("GET", "", "")).as_bytes())
        .await
        .expect("a request");
    socket.shutdown().await.expect("half closed");
    let answer = until(&mut socket, "late").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"),
        "{answer}"
    );
    let mut socket = stage.connect().await;
    let head = format!(
        "{}Content-Length: 100000000\r\n\r\n",
        stage.head("POST", "early", "")
    );
    socket.write_all(head.as_bytes()).await.expect("a head");
    socket.write_all(&[b'x'; 1000]).await.expect("some of it");
    let answer = until(&mut socket, "big").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_does_not_work_for_a_browser_that_is_gone() {
    let stage = Stage::new().await;
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |mut socket, _| {
        let ended = ended.clone();
        async move {
            let head = until(&mut socket, "\r\n\r\n").await;
            if head.contains("/stream") {
                let _ = socket
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
                    )
                    .await;
            }
            if head.contains("/flood") {
                let _ = socket
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
                    .await;
                while socket.write_all(&[b'x'; 65536]).await.is_ok() {}
            }
            while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            let _ = ended.send(());
        }
    })
    .await;
    stage.behind(&app).await;
    // One that has said its last word, and does not read either.
    let mut silent = stage.connect().await;
    silent
        .write_all(format!("{}\r\n", stage.head("GET", "flood", "")).as_bytes())
        .await
        .expect("a request");
    silent.shutdown().await.expect("half closed");
    timeout(Duration::from_secs(15), ends.recv())
        .await
        .expect("it still works for nobody")
        .expect("an end");
    for path in ["thinks", "stream"] {
        let mut socket = stage.connect().await;
        socket
            .write_all(format!("{}\r\n", stage.head("GET", path, "")).as_bytes())
            .await
            .expect("a request");
        if path == "stream" {
            assert!(
                until(&mut socket, "data: 1\n\n")
                    .await
                    .ends_with("data: 1\n\n")
            );
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        drop(socket);
        timeout(Duration::from_secs(15), ends.recv())
            .await
            .unwrap_or_else(|_| panic!("{path}: the app still works"))
            .expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http_1_0_get_no_chunks() {
    let stage = Stage::new().await;
    let (app, _) =
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    stage.behind(&app).await;
    let mut socket = stage.connect().await;
    let head = stage
        .head("GET", "", "Connection: keep-alive\r\n")
        .replace("HTTP/1.1", "HTTP/1.0");
    socket
        .write_all(format!("{head}\r\n").as_bytes())
        .await
        .expect("a request");
    let mut answer = String::new();
    timeout(SOON, socket.read_to_string(&mut answer))
        .await
        .expect("it ends with its connection")
        .expect("text");
    assert!(
        !answer.to_ascii_lowercase().contains("transfer-encoding")
            && answer.ends_with("\r\n\r\nhello"),
        "{answer}"
    );
    assert!(
        !answer.to_ascii_lowercase().contains("keep-alive"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_the_connection() {
    let stage = Stage::new().await;
    let app = app(|mut socket, _| async move {
        loop {
            let head = until(&mut socket, "\r\n\r\n").await;
            let answer = match head.split(' ').nth(1).unwrap_or("") {
                path if path.ends_with("/304") => {
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"
                }
                path if path.ends_with("/204") => {
                    "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
                }
                path if path.ends_with("/101") => {
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
                }
                _ if head.is_empty() => return,
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            };
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    stage.behind(&app).await;
    let mut socket = stage.connect().await;
    for (method, path, status) in [
        ("GET", "304", "304"),
        ("GET", "204", "204"),
        ("HEAD", "x", "200"),
        ("HEAD", "304", "304"),
        ("GET", "204", "204"),
    ] {
        socket
            .write_all(format!("{}\r\n", stage.head(method, path, "")).as_bytes())
            .await
            .expect("a request");
        let head = until(&mut socket, "\r\n\r\n").await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {head}"
        );
        assert!(
            path != "x" || head.contains("content-length: 5\r\n"),
            "{head}"
        );
    }
    // A change of protocols that nobody asked for.
    assert!(
        stage
            .ask("GET", "101", "", "")
            .await
            .starts_with("HTTP/1.1 502")
    );
}

/// An app that answers once it has got a body of this length.
async fn reads_whole(length: usize) -> String {
    app(move |mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        let mut body = vec![0; length];
        if socket.read_exact(&mut body).await.is_ok() {
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_an_item_are_kept_and_said_in_words() {
    let stage = Stage::new().await;
    let silent = app(|mut socket, _| async move {
        let head = until(&mut socket, "\r\n\r\n").await;
        if head.contains("/half") {
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                .await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    stage
        .set(json!({"upstream_url": silent, "init_timeout": 1, "read_timeout": 1}))
        .await;
    let started = Instant::now();
    let answer = stage.ask("GET", "", "", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("Bo Lind"),
        "{answer}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    // An upload that the app does not read is no excuse.
    let mut socket = stage.connect().await;
    socket
        .write_all(
            format!(
                "{}Content-Length: 100000000\r\n\r\n",
                stage.head("POST", "", "")
            )
            .as_bytes(),
        )
        .await
        .expect("a head");
    let piece = vec![b'x'; 1 << 20];
    let stuffing = async { while socket.write_all(&piece).await.is_ok() {} };
    let _ = timeout(Duration::from_millis(500), stuffing).await;
    assert!(
        until(&mut socket, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 504")
    );
    // A client that takes its time is no fault of the app's.
    stage.behind(&reads_whole(7).await).await;
    let mut socket = stage.connect().await;
    socket
        .write_all(format!("{}Content-Length: 7\r\n\r\nhal", stage.head("POST", "", "")).as_bytes())
        .await
        .expect("a head");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    socket.write_all(b"f it").await.expect("the rest");
    assert!(
        until(&mut socket, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    stage.behind(&silent).await;
    let answer = stage.ask("GET", "half", "", "").await;
    assert!(
        answer.ends_with("hello") && answer.contains("content-length: 10"),
        "broken off, not ended: {answer}"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    let wrong = stage
        .world
        .api(
            &stage.world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", stage.guid),
            &json!({"read_timeout": 0}).to_string(),
        )
        .await;
    assert!(
        wrong.status == 400 && wrong.body.contains("1 to 86,400"),
        "{}",
        wrong.body
    );
    stage
        .set(json!({"init_timeout": null, "read_timeout": null}))
        .await;
    let seen = stage
        .world
        .api(
            &stage.world.key("bo"),
            "GET",
            &format!("v1/content/{}", stage.guid),
            "",
        )
        .await
        .json();
    assert!(
        seen["init_timeout"].is_null() && seen["read_timeout"].is_null(),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_hears_where_it_stands_and_its_own_addresses_become_ours() {
    let stage = Stage::new().await;
    let (app, heads) = says(
        b"HTTP/1.1 201 Created\r\nLocation: /new?x\r\nContent-Location: /base/new\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=1; Path=/base/x\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    stage.behind(&format!("{app}/base")).await;
    let answer = stage.ask("GET", "deep/er?q=%20", "", "").await;
    let base = format!("/content/{}/", stage.guid);
    assert!(
        answer.contains(&format!("location: {base}new?x\r\n")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("content-location: {base}new\r\n")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("set-cookie: a=1; Path={base}\r\n")),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("set-cookie: b=1; Path={base}x\r\n")),
        "{answer}"
    );
    let origin = stage.place.split("/content/").next().expect("an origin");
    let host = origin.trim_start_matches("http://");
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.starts_with("GET /base/deep/er?q=%20 HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        format!("host: {host}"),
        format!("x-forwarded-host: {host}"),
        "x-forwarded-proto: http".into(),
        "x-forwarded-for: 127.0.0.1".into(),
        format!("forwarded: for=127.0.0.1;host=\"{host}\";proto=http"),
        format!("x-forwarded-prefix: {}", base.trim_end_matches('/')),
        format!(
            "rstudio-connect-app-base-url: {origin}{}",
            base.trim_end_matches('/')
        ),
        format!("x-rsc-request: {}deep/er?q=%20", stage.place),
    ] {
        assert!(
            head.lines().any(|found| found == line),
            "{line} is missing: {head}"
        );
    }
    assert!(!head.to_ascii_lowercase().contains("connection:"), "{head}");
    // Kept instead of stripped.
    stage
        .set(json!({"upstream_url": app, "proxy": {"keep_path_prefix": true}}))
        .await;
    stage.ask("GET", "deep", "", "").await;
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.starts_with(&format!("GET {base}deep HTTP/1.1\r\n")),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_outer_proxy_says_of_the_way_stays() {
    let stage = Stage::in_world(World::start_trusting(&["127.0.0.0/8"]).await).await;
    let (app, heads) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    stage.behind(&app).await;
    stage
        .ask(
            "GET",
            "",
            "X-Forwarded-For: 203.0.113.7, 198.51.100.2\r\nX-Forwarded-Proto: gopher\r\n",
            "",
        )
        .await;
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains("x-forwarded-for: 203.0.113.7, 198.51.100.2, 127.0.0.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("forwarded: for=198.51.100.2;"),
        "the nearest that is not trusted: {head}"
    );
    assert!(!head.contains("gopher"), "{head}");
    // HAProxy adds a line of its own: what stands in an earlier one is its client's word.
    stage
        .ask(
            "GET",
            "",
            "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: [2001:db8::1]:4711\r\n",
            "",
        )
        .await;
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains("x-forwarded-for: 203.0.113.7, [2001:db8::1]:4711, 127.0.0.1\r\n"),
        "{head}"
    );
    assert!(head.contains("forwarded: for=\"[2001:db8::1]\";"), "{head}");
    // A client's odd byte does not take the proxy's word away.
    let mut raw = stage.connect().await;
    let mut request = format!("{}X-Forwarded-For: ", stage.head("GET", "", "")).into_bytes();
    request.extend_from_slice(b"\xff, 203.0.113.7\r\nConnection: close\r\n\r\n");
    raw.write_all(&request).await.expect("a request");
    assert!(
        until(&mut raw, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains(", 203.0.113.7, 127.0.0.1\r\n")
            && head.contains("forwarded: for=203.0.113.7;"),
        "{head}"
    );
    // Behind what is no address, nobody is believed.
    stage
        .ask(
            "GET",
            "",
            "X-Forwarded-For: 203.0.113.7, unknown\r\nForwarded: for=203.0.113.7\r\n",
            "",
        )
        .await;
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains("forwarded: for=127.0.0.1;") && head.matches("orwarded: ").count() == 1,
        "{head}"
    );
    // One that speaks RFC 7239 only.
    let way = "Forwarded: for=203.0.113.7;proto=https, For=\"[2001:db8::1]:4711\";by=x\r\n";
    stage.ask("GET", "", way, "").await;
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains("x-forwarded-for: 203.0.113.7, 2001:db8::1, 127.0.0.1\r\n"),
        "{head}"
    );
    assert!(head.contains("forwarded: for=\"[2001:db8::1]\";"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_on_unix_sockets_and_behind_tls_of_their_own() {
    let stage = Stage::new().await;
    let path = std::env::temp_dir().join(format!("valetkey-{}.sock", &stage.guid[..8]));
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                while !until(&mut socket, "\r\n\r\n").await.is_empty() {
                    let _ = socket
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix")
                        .await;
                }
            });
        }
    });
    stage.behind(&format!("unix:{}", path.display())).await;
    for _ in 0..2 {
        assert!(stage.ask("GET", "", "", "").await.ends_with("unix"));
    }
    drop(std::fs::remove_file(&path));
    for elsewhere in [
        "unix:/run/x.sock",
        "unix:/etc/../run/x.sock",
        "unix:x.sock",
        "unix:/tmp/deeper/x.sock",
    ] {
        let answer = stage
            .world
            .api(
                &stage.world.key("bo"),
                "PATCH",
                &format!("v1/content/{}", stage.guid),
                &json!({"upstream_url": elsewhere}).to_string(),
            )
            .await;
        assert!(
            answer.status == 400 && answer.body.contains("upstream_sockets"),
            "{elsewhere}: {}",
            answer.body
        );
    }
    // TLS: an authority of the publisher's own is trusted where they say so, and nowhere else.
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
        )
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!(
        "https://localhost:{}",
        listener.local_addr().expect("an address").port()
    );
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else {
                    return;
                };
                while !until(&mut socket, "\r\n\r\n").await.is_empty() {
                    let _ = socket
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntls!")
                        .await;
                    let _ = socket.flush().await;
                }
            });
        }
    });
    stage.behind(&address).await;
    assert!(
        stage
            .ask("GET", "", "", "")
            .await
            .starts_with("HTTP/1.1 502"),
        "nobody vouches for it"
    );
    stage.set(json!({"proxy": {"upstream_ca": pem}})).await;
    for _ in 0..2 {
        assert!(stage.ask("GET", "", "", "").await.ends_with("tls!"));
    }
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
        .expect("a certificate")
        .cert
        .pem();
    stage.set(json!({"proxy": {"upstream_ca": other}})).await;
    assert!(
        stage
            .ask("GET", "", "", "")
            .await
            .starts_with("HTTP/1.1 502"),
        "another authority"
    );
    let wrong = json!({"proxy": {"upstream_ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}}).to_string();
    let answer = stage
        .world
        .api(
            &stage.world.key("bo"),
            "PATCH",
            &format!("v1/content/{}", stage.guid),
            &wrong,
        )
        .await;
    assert!(
        answer.status == 400 && answer.body.contains("PEM"),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_keep_their_viewers_and_stand_in_for_one_another() {
    let stage = Stage::new().await;
    let named = |name: &'static str| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while !until(&mut socket, "\r\n\r\n").await.is_empty() {
                        let _ = socket
                            .write_all(
                                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len()).as_bytes(),
                            )
                            .await;
                    }
                });
            }
        });
        (address, task)
    };
    let ((one, one_task), (two, two_task)) = (named("one").await, named("two").await);
    let set = |draining: &'static str| {
        let processes: Vec<_> = [&one, &two]
            .into_iter()
            .map(|url| json!({"url": url, "draining": *url == draining}))
            .collect();
        json!({"proxy": {"processes": processes}})
    };
    stage.set(set("")).await;
    let who = async |browser: &Browser| browser.get(&stage.place).await.body;
    let mine = who(&stage.vera).await;
    let cookies = stage.vera.cookies_of(&stage.place);
    let cookie = cookies.keys().find(|name| name.starts_with("valetkey-p"));
    let cookie = cookie.expect("said in a cookie, so that other nodes know it, too");
    for _ in 0..5 {
        assert_eq!(who(&stage.vera).await, mine, "a viewer stays");
    }
    // Somebody whose first request is a WebSocket stays where it went, too.
    let (app, _) = socket_app(b"").await;
    stage
        .set(json!({"proxy": {"processes": [{"url": app}, {"url": format!("{app}/x")}]}}))
        .await;
    let (head, _) = socket(&stage, &stage.vera, "").await;
    assert!(head.contains(&format!("set-cookie: {cookie}=")), "{head}");
    stage.set(set("")).await;
    // What a token is used for counts at the process that got it.
    let (app, heads) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    stage
        .set(json!({"proxy": {"processes": [{"url": app}, {"url": format!("{app}/x")}]}}))
        .await;
    who(&stage.vera).await;
    let head = heads
        .lock()
        .expect("heads")
        .last()
        .cloned()
        .expect("a request");
    let token = head
        .split("posit-connect-user-session-token: ")
        .nth(1)
        .and_then(|rest| rest.split('\r').next())
        .expect("a token");
    assert_eq!(
        stage
            .world
            .exchange(&stage.world.key("bo"), token)
            .await
            .status,
        200
    );
    let bo = stage.world.signed_in("bo").await;
    bo.get(&format!("/content-settings/{}", stage.guid)).await;
    let mark = stage.vera.cookies_of(&stage.place)[cookie].clone();
    let found = stage
        .world
        .sql("SELECT process AS value FROM token_uses WHERE process <> ''");
    assert!(mark.len() == 16 && found == [mark], "{found:?}");
    stage.set(set("")).await;
    let mine = who(&stage.vera).await;
    // The one that is taken out keeps whom it has, and gets nobody new.
    let (mine_url, other_url, other) = if mine == "one" {
        (one.clone(), two.clone(), "two")
    } else {
        (two.clone(), one.clone(), "one")
    };
    let draining =
        json!({"proxy": {"processes": [{"url": mine_url, "draining": true}, {"url": other_url}]}});
    stage.set(draining).await;
    assert_eq!(who(&stage.vera).await, mine);
    let viktor = stage.world.signed_in("viktor").await;
    viktor
        .open(&format!("/content/{}/", stage.guid), "viktor")
        .await;
    assert_eq!(who(&viktor).await, other);
    // One is gone: the other one takes over, at once.
    if mine == "one" { &one_task } else { &two_task }.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(who(&stage.vera).await, other);
    let page = stage
        .world
        .signed_in("bo")
        .await
        .get(&format!("/content-settings/{}", stage.guid))
        .await;
    assert!(
        page.body.contains("does not answer") && page.body.contains("draining"),
        "{}",
        page.body
    );
    two_task.abort();
    one_task.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.vera.get(&stage.place).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reconnect_bar_stands_where_it_was_switched_on_and_knows_when_the_viewer_is_needed() {
    let stage = Stage::new().await;
    let (app, heads) = says(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<h1>Hello</h1>",
    )
    .await;
    stage.behind(&app).await;
    let navigate = [
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("accept", "text/html"),
        ("accept-encoding", "gzip"),
    ];
    let own = format!("{}__valetkey__/", stage.place);
    let page = stage.vera.send("GET", &stage.place, &navigate, None).await;
    assert_eq!(page.body, "<h1>Hello</h1>");
    for name in ["bar.js", "standing", "connected"] {
        assert_eq!(
            stage
                .vera
                .send("GET", &format!("{own}{name}"), &[], None)
                .await
                .status,
            404,
            "{name}"
        );
    }
    stage.set(json!({"proxy": {"reconnect_bar": true}})).await;
    let page = stage.vera.send("GET", &stage.place, &navigate, None).await;
    let script = format!(
        "<script src=\"/content/{}/__valetkey__/bar.js\" defer></script>",
        stage.guid
    );
    assert!(
        page.body.starts_with("<h1>Hello</h1>") && page.body.contains(&script),
        "{}",
        page.body
    );
    assert!(
        !heads
            .lock()
            .expect("heads")
            .last()
            .expect("a request")
            .contains("accept-encoding")
    );
    let fetched = stage
        .vera
        .send(
            "GET",
            &stage.place,
            &[("sec-fetch-mode", "cors"), ("accept", "text/html")],
            None,
        )
        .await;
    assert_eq!(
        fetched.body, "<h1>Hello</h1>",
        "what a script fetches is left alone"
    );
    assert!(
        stage
            .vera
            .send("GET", &format!("{own}bar.js"), &[], None)
            .await
            .header("content-type")
            .starts_with("text/javascript")
    );
    let standing = async || {
        stage
            .vera
            .send(
                "GET",
                &format!("{own}standing"),
                &[("sec-fetch-site", "same-origin")],
                None,
            )
            .await
            .json()
    };
    assert_eq!(standing().await["standing"], "good");
    assert_eq!(
        stage
            .vera
            .send(
                "GET",
                &format!("{own}standing"),
                &[("sec-fetch-site", "same-site")],
                None
            )
            .await
            .status,
        403
    );
    // The provider ends the connection: the bar leads to our page, from there back to a page of
    // ours on content's origin.
    stage.world.provider.revoke_refresh_tokens();
    stage.world.pass(Duration::from_secs(3600));
    let token = stage.world.token(&stage.vera, &stage.guid).await;
    stage.world.pass(Duration::from_secs(60));
    assert_eq!(
        stage
            .world
            .exchange(&stage.world.key("bo"), &token)
            .await
            .json()["code"],
        219
    );
    let needs = standing().await;
    assert_eq!(needs["standing"], "needs_viewer");
    let end = stage
        .vera
        .open(
            needs["login_url"].as_str().expect("an address"),
            "Connected",
        )
        .await;
    assert!(
        end.url.ends_with("/__valetkey__/connected") && end.body.contains("close this window"),
        "{} {}",
        end.url,
        end.body
    );
    assert_eq!(standing().await["standing"], "good");
    assert_eq!(
        stage
            .world
            .exchange(&stage.world.key("bo"), &token)
            .await
            .status,
        200,
        "the same token works again"
    );
    // No app is ever asked for what is ours.
    let before = heads.lock().expect("heads").len();
    assert_eq!(
        stage
            .vera
            .send("GET", &format!("{own}anything"), &[], None)
            .await
            .status,
        404
    );
    assert_eq!(heads.lock().expect("heads").len(), before);
    // A forgotten tab asks for ever, and keeps nobody signed in.
    for _ in 0..9 {
        stage.world.pass(Duration::from_secs(3600));
        standing().await;
    }
    assert_eq!(standing().await["standing"], "signed_out");
    let stranger = Browser::new(&stage.world.portal);
    let out = stranger
        .send("GET", &format!("{own}standing"), &[], None)
        .await
        .json();
    assert!(
        out["standing"] == "signed_out"
            && out["login_url"]
                .as_str()
                .is_some_and(|url| url.contains("/login?next=")),
        "{out}"
    );
}

/// A frame as a browser sends it: masked.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).expect("short")),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).expect("short").to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0, 0, 0, 0]);
    frame.extend_from_slice(payload);
    frame
}

/// Opens a WebSocket; the head of the answer, and the socket.
#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_as_they_are() {
    let stage = Stage::new().await;
    let (app, heads) = socket_app(b"").await;
    stage.behind(&app).await;
    let (head, mut open) = socket(
        &stage,
        &stage.vera,
        "Sec-WebSocket-Protocol: b, a\r\nSec-WebSocket-Protocol: c\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    )
    .await;
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("sec-websocket-protocol: b\r\n"),
        "{head}"
    );
    let got = heads.lock().expect("heads")[0].clone();
    assert!(
        got.contains("sec-websocket-protocol: b, a, c\r\n"),
        "all of them, in order: {got}"
    );
    assert!(
        got.contains("sec-websocket-extensions: permessage-deflate\r\n")
            && got.contains("posit-connect-user-session-token: ey"),
        "{got}"
    );
    // Text, binary, ping, a fragment, reserved bits, half a frame: the app's to judge, not ours.
    let odd = [
        masked(1, b"text"),
        masked(2, &[0; 300]),
        masked(9, b"ping"),
        vec![0x01, 0x83, 0, 0, 0, 0, 1, 2, 3],
        vec![0xf3, 0x80, 0, 0, 0, 0],
        masked(8, &[0x0f, 0xa0]),
    ]
    .concat();
    open.write_all(&odd).await.expect("frames");
    let mut back = vec![0; odd.len()];
    timeout(SOON, open.read_exact(&mut back))
        .await
        .expect("in time")
        .expect("everything");
    assert_eq!(back, odd);
    // A message of 60 MB streams through, and pressure goes back: nothing is read ahead of a
    // browser that does not read.
    let (_, mut open) = socket(&stage, &stage.vera, "").await;
    let message = masked(2, &vec![7; 60_000_000]);
    let (mut read, mut write) = open.split();
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let sending = async {
        for piece in message.chunks(100_000) {
            write.write_all(piece).await.expect("a message");
            sent.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
        }
    };
    let reading = async {
        // Nobody reads: the sender gets stuck, with no more under way than the kernel's buffers
        // hold.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stuck = sent.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), stuck);
        assert!(stuck < 40_000_000, "{stuck} of {}", message.len());
        let mut back = vec![0; message.len()];
        read.read_exact(&mut back).await.expect("all of it");
        assert!(back == message);
    };
    timeout(Duration::from_secs(30), async {
        tokio::join!(sending, reading)
    })
    .await
    .expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_ends_with_what_let_its_viewer_in() {
    let begin = async |stage: &Stage| {
        let app = app(|mut socket, _| async move {
            until(&mut socket, "\r\n\r\n").await;
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                .await;
            while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        })
        .await;
        stage.behind(&app).await;
        let mut socket = stage.connect().await;
        socket
            .write_all(format!("{}\r\n", stage.head("GET", "events", "")).as_bytes())
            .await
            .expect("a request");
        let head = until(&mut socket, "data: 1\n\n").await;
        assert!(head.ends_with("data: 1\n\n"), "{head}");
        socket
    };
    let ended = async |mut socket: TcpStream| {
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(3), socket.read_to_end(&mut rest))
            .await
            .expect("it ends");
        assert!(
            !rest.ends_with(b"0\r\n\r\n"),
            "cut, and not ended as if it were whole"
        );
    };
    let (stage, other) = (Stage::new().await, Stage::new().await);
    let open = begin(&stage).await;
    stage.set(json!({"access_type": "acl"})).await;
    ended(open).await;
    // A node that stops does not wait for it: its page asks again, and another node answers.
    let open = begin(&other).await;
    let since = Instant::now();
    other.world.begin_stop();
    ended(open).await;
    other.world.stop().await;
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

/// The codes of the close frames that come, to the end.
async fn close_code(open: &mut TcpStream, within: Duration) -> Option<u16> {
    let mut got = Vec::new();
    let reading = async {
        let mut piece = [0; 1024];
        while let Ok(read @ 1..) = open.read(&mut piece).await {
            got.extend_from_slice(&piece[..read]);
        }
    };
    let _ = timeout(within, reading).await;
    let at = got.iter().position(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes([*got.get(at + 2)?, *got.get(at + 3)?]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_says_why_it_is_closed() {
    let stage = Stage::new().await;
    let (app, _) = socket_app(b"\x81\x02hi").await;
    stage
        .set(json!({"upstream_url": app, "read_timeout": 1}))
        .await;
    let (_, mut open) = socket(&stage, &stage.vera, "").await;
    assert_eq!(
        close_code(&mut open, Duration::from_secs(5)).await,
        Some(4408),
        "nothing was said"
    );
    stage.set(json!({"read_timeout": null})).await;
    // In the middle of a frame there is no room for a word: it is cut, and the browser sees that.
    let (app, _) = socket_app(b"\x81\x7e\x10\x00half").await;
    stage.behind(&app).await;
    let (_, mut cut) = socket(&stage, &stage.vera, "").await;
    until(&mut cut, "half").await;
    stage.set(json!({"access_type": "acl"})).await;
    assert_eq!(close_code(&mut cut, Duration::from_secs(5)).await, None);
    // Who may not open it hears why, and the record holds it; another site's page, too.
    let (_, mut refused) = socket(&stage, &stage.vera, "").await;
    assert_eq!(close_code(&mut refused, SOON).await, Some(4403));
    let foreign = "Origin: https://elsewhere.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    assert!(
        stage
            .ask("GET", "ws", foreign, "")
            .await
            .starts_with("HTTP/1.1 403")
    );
    let record = stage
        .world
        .api(
            &stage.world.key("ada"),
            "GET",
            "v1/audit_logs?limit=100",
            "",
        )
        .await
        .body;
    assert!(
        record.contains("may not open this content") && record.contains("WebSocket from elsewhere"),
        "{record}"
    );
    stage
        .set(json!({"access_type": "logged_in", "upstream_url": "http://127.0.0.1:1"}))
        .await;
    stage
        .vera
        .open(&format!("/content/{}/", stage.guid), "502")
        .await;
    let (head, mut gone) = socket(&stage, &stage.vera, "Sec-WebSocket-Protocol: x, y\r\n").await;
    assert!(head.contains("sec-websocket-protocol: x\r\n"), "{head}");
    assert_eq!(
        close_code(&mut gone, SOON).await,
        Some(1014),
        "the app is not there"
    );
    // A node that stops sends its sockets elsewhere.
    let (app, _) = socket_app(b"").await;
    stage.behind(&app).await;
    let (head, mut open) = socket(&stage, &stage.vera, "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stage.world.begin_stop();
    assert_eq!(close_code(&mut open, SOON).await, Some(1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_ends_its_frame_cannot_keep_the_portal_from_closing() {
    let stage = Stage::new().await;
    let endless = app(|mut socket, _| async move {
        until(&mut socket, "\r\n\r\n").await;
        let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let _ = socket.write_all(accepted.as_bytes()).await;
        let _ = socket.write_all(&[0x82, 0x7f, 0, 0, 0xff, 0, 0, 0, 0, 0]).await;
        while socket.write_all(&[7; 65536]).await.is_ok() {}
    })
    .await;
    stage.behind(&endless).await;
    let (head, mut flood) = socket(&stage, &stage.vera, "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let flood = tokio::spawn(async move {
        let mut piece = vec![0; 65536];
        while flood.read(&mut piece).await.is_ok_and(|read| read > 0) {}
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.set(json!({"access_type": "acl"})).await;
    timeout(Duration::from_secs(6), flood)
        .await
        .expect("it is closed")
        .expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_apps_own_goes_on_only_for_the_viewer_who_had_it() {
    let stage = Stage::new().await;
    let id = "198667fd-393d-4905-873c-3a9abc1f37a6";
    let (app, heads) = socket_app(b"\x82\x28\x0a\x24198667fd-393d-4905-873c-3a9abc1f37a6__").await;
    let viktor = stage.world.signed_in("viktor").await;
    viktor
        .open(&format!("/content/{}/", stage.guid), "viktor")
        .await;
    stage.behind(&app).await;
    let offered = |word: &str| {
        format!(
            "Sec-WebSocket-Protocol: streamlit, xsrf, {word}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        )
    };
    let last = || {
        heads
            .lock()
            .expect("heads")
            .last()
            .cloned()
            .expect("a handshake")
    };
    // Nobody has it yet: nobody may name it.
    socket(&stage, &viktor, &offered(id)).await;
    assert!(
        last().contains("sec-websocket-protocol: streamlit, xsrf\r\n"),
        "{}",
        last()
    );
    assert!(
        !last().contains("deflate"),
        "no id would be seen in a compressed stream: {}",
        last()
    );
    // That greeting was Viktor's, since the app says the same to everyone here: the first one
    // counts. Vera is refused.
    tokio::time::sleep(Duration::from_millis(500)).await;
    socket(&stage, &stage.vera, &offered(id)).await;
    assert!(
        last().contains("sec-websocket-protocol: streamlit, xsrf\r\n"),
        "{}",
        last()
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    socket(&stage, &viktor, &offered(id)).await;
    assert!(
        last().contains(&format!(
            "sec-websocket-protocol: streamlit, xsrf, {id}\r\n"
        )),
        "{}",
        last()
    );
    // Streamlit looks at the place and not at the first word: another word there changes nothing.
    socket(
        &stage,
        &stage.vera,
        &format!("Sec-WebSocket-Protocol: other, xsrf, {id}\r\n"),
    )
    .await;
    assert!(
        !last().contains(id) && last().contains("sec-websocket-protocol: other, xsrf\r\n"),
        "{}",
        last()
    );
    // What is no id is its app's own business.
    socket(
        &stage,
        &stage.vera,
        "Sec-WebSocket-Protocol: other, xsrf, v3.1\r\n",
    )
    .await;
    assert!(
        last().contains("sec-websocket-protocol: other, xsrf, v3.1\r\n"),
        "{}",
        last()
    );
    // No app hears of what is the portal's own.
    let before = heads.lock().expect("heads").len();
    let own = stage.head(
        "GET",
        "__valetkey__/x",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    );
    let origin = stage.place.split("/content/").next().expect("an origin");
    let mut reserved = stage.connect().await;
    reserved
        .write_all(format!("{own}Origin: {origin}\r\n\r\n").as_bytes())
        .await
        .expect("a request");
    assert!(
        until(&mut reserved, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert_eq!(heads.lock().expect("heads").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_renews_its_session_token_while_the_session_lives() {
    let stage = Stage::new().await;
    let token = stage.world.token(&stage.vera, &stage.guid).await;
    let bo = stage.world.key("bo");
    let renew = async |token: &str| {
        stage
            .world
            .exchange_form(
                &bo,
                &[
                    (
                        "grant_type",
                        "urn:ietf:params:oauth:grant-type:token-exchange",
                    ),
                    ("subject_token_type", "urn:posit:connect:user-session-token"),
                    ("subject_token", token),
                    (
                        "requested_token_type",
                        "urn:posit:connect:user-session-token",
                    ),
                ],
            )
            .await
    };
    stage.world.pass(Duration::from_secs(3000));
    let renewed = renew(&token).await;
    assert_eq!(renewed.status, 200, "{}", renewed.body);
    let renewed = renewed.json();
    assert_eq!(
        renewed["issued_token_type"],
        "urn:posit:connect:user-session-token"
    );
    assert_eq!(
        (
            renewed["token_type"].as_str(),
            renewed["expires_in"].as_u64()
        ),
        (Some("N_A"), Some(3600))
    );
    let newer = renewed["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_ne!(newer, token);
    stage.world.pass(Duration::from_secs(1000));
    assert_eq!(
        stage.world.exchange(&bo, &token).await.json()["code"],
        215,
        "the old one has ended"
    );
    assert_eq!(stage.world.exchange(&bo, &newer).await.status, 200);
    assert_eq!(
        renew(&token).await.json()["code"],
        215,
        "an ended one brings no new one"
    );
    assert_eq!(
        renew_with(&stage, &stage.world.key("viktor"), &newer).await,
        403,
        "nobody else's key"
    );
    let page = stage.vera.get("/content").await;
    stage.vera.submit(&page, "/logout", &[]).await;
    assert_eq!(renew(&newer).await.json()["code"], 215, "signed out");
}

async fn renew_with(stage: &Stage, key: &str, token: &str) -> u16 {
    let form = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token_type", "urn:posit:connect:user-session-token"),
        ("subject_token", token),
        (
            "requested_token_type",
            "urn:posit:connect:user-session-token",
        ),
    ];
    stage.world.exchange_form(key, &form).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_used_without_its_viewer_raises_the_alarm() {
    let stage = Stage::new().await;
    let (app, _) = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let token = stage.world.token(&stage.vera, &stage.guid).await;
    let viktor = stage.world.signed_in("viktor").await;
    viktor
        .open(&format!("/content/{}/", stage.guid), "viktor")
        .await;
    stage.behind(&app).await;
    let (bo, settings) = (
        stage.world.signed_in("bo").await,
        format!("/content-settings/{}", stage.guid),
    );
    // Both are there, and their presence is written down.
    let here = async || {
        for _ in 0..2 {
            viktor.get(&stage.place).await;
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
    };
    here().await;
    assert!(!bo.get(&settings).await.body.contains("may show one viewer"));
    // Vera is gone for five minutes; Viktor goes on, and the app still trades Vera's token.
    stage.world.pass(Duration::from_secs(300));
    viktor.get(&stage.place).await;
    let mut page = String::new();
    for _ in 0..10 {
        stage.world.pass(Duration::from_secs(10));
        viktor.get(&stage.place).await;
        assert_eq!(
            stage
                .world
                .exchange(&stage.world.key("bo"), &token)
                .await
                .status,
            200
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        page = bo.get(&settings).await.body;
        if page.contains("may show one viewer") {
            break;
        }
    }
    assert!(
        page.contains("Vera Holm’s token, while only others were there")
            && page.contains("cache_resource"),
        "{page}"
    );
    let record = stage
        .world
        .api(
            &stage.world.key("ada"),
            "GET",
            "v1/audit_logs?limit=100",
            "",
        )
        .await
        .body;
    assert!(record.contains("shared_token_suspected"), "{record}");
    bo.submit(&bo.get(&settings).await, "/mended", &[]).await;
    assert!(!bo.get(&settings).await.body.contains("may show one viewer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_speaks_tls_and_http_2_and_follows_its_certificate() {
    let certificate = |name: &str| {
        let made =
            rcgen::generate_simple_self_signed(vec![name.to_owned(), "127.0.0.1".to_owned()])
                .expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let folder = std::env::temp_dir().join(format!("valetkey-tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (chain, private) = (folder.join("chain.pem"), folder.join("key.pem"));
    let put = |(pem, key): &(String, String)| {
        std::fs::write(&private, key).expect("a key");
        std::fs::write(&chain, pem).expect("a chain");
    };
    let (first, second) = (certificate("localhost"), certificate("localhost"));
    put(&first);
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let served = crate::harness::Served::start_tls(&text(&chain), &text(&private)).await;
    let client = |pem: &str, http2: bool| {
        let mut builder =
            reqwest::Client::builder()
                .tls_certs_only([
                    reqwest::Certificate::from_pem(pem.as_bytes()).expect("a certificate")
                ]);
        if !http2 {
            builder = builder.http1_only();
        }
        builder.build().expect("a client")
    };
    let url = format!("https://localhost:{}/__ping__", served.address.port());
    let answer = client(&first.0, true)
        .get(&url)
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    let answer = client(&first.0, false)
        .get(&url)
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_11)
    );
    assert!(client(&second.0, true).get(&url).send().await.is_err());
    // Content over HTTP/2: bodies both ways, cookies in several lines, and an app that hears
    // ordinary HTTP/1.1.
    let (app, heads) =
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-private\r\nX-Private: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .await;
    let key = format!("Key {}", served.administrator("ada"));
    let api = format!(
        "https://localhost:{}/__api__/v1/content",
        served.address.port()
    );
    let body = json!({"name": "open", "access_type": "all", "upstream_url": app}).to_string();
    let made = client(&first.0, true)
        .post(&api)
        .header("authorization", key)
        .body(body)
        .send()
        .await
        .expect("an answer");
    let made: serde_json::Value =
        serde_json::from_str(&made.text().await.expect("a body")).expect("JSON");
    let place = format!(
        "https://127.0.0.1:{}/content/{}/",
        served.address.port(),
        made["guid"].as_str().expect("a guid")
    );
    let h2 = client(&first.0, true);
    let answer = h2
        .get(&place)
        .header("cookie", "a=1")
        .header("cookie", "valetkey=x; b=2")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    assert!(
        answer.headers().get("connection").is_none() && answer.headers().get("x-private").is_none()
    );
    assert_eq!(answer.text().await.expect("a body"), "hello");
    let head = heads.lock().expect("heads").pop().expect("a request");
    assert!(
        head.contains(&format!("host: 127.0.0.1:{}\r\n", served.address.port()))
            && head.contains("x-forwarded-proto: https\r\n"),
        "{head}"
    );
    assert!(
        head.contains("cookie: a=1; b=2\r\n") && !head.contains(":authority"),
        "{head}"
    );
    let answer = h2.post(&place).body("x=1").send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "hello");
    let head = heads
        .lock()
        .expect("heads")
        .iter()
        .rev()
        .find(|head| head.starts_with("POST"))
        .cloned()
        .expect("a request");
    assert!(head.contains("content-length: 3\r\n"), "{head}");
    // Half of a renewal: the old pair stays.
    std::fs::write(&chain, &second.0).expect("a chain");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(client(&first.0, true).get(&url).send().await.is_ok());
    put(&second);
    for tries in 0.. {
        if client(&second.0, true).get(&url).send().await.is_ok() {
            break;
        }
        assert!(tries < 40, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(client(&first.0, true).get(&url).send().await.is_err());
    drop(std::fs::remove_dir_all(folder));
}
