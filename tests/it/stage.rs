//! A stage for tests of the proxy on the wire: a content item whose app is played by the test, and
//! raw connections to it.

use crate::harness::{Browser, World};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

pub const SOON: Duration = Duration::from_secs(10);

/// A content item with an app of the test's own, a viewer who may open it, and what the viewer's
/// browser sends.
pub struct Stage {
    pub world: World,
    pub vera: Browser,
    pub guid: String,
    pub place: String,
}

impl Stage {
    pub async fn new() -> Self {
        Self::in_world(World::start().await).await
    }

    pub async fn in_world(world: World) -> Self {
        let (vera, _) = world.connected("vera").await;
        let guid = world.content(0);
        let place = world.app(&guid);
        Self {
            world,
            vera,
            guid,
            place,
        }
    }

    /// Changes the item, as its publisher.
    pub async fn set(&self, body: serde_json::Value) {
        let answer = self
            .world
            .api(
                &self.world.key("bo"),
                "PATCH",
                &format!("v1/content/{}", self.guid),
                &body.to_string(),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub async fn behind(&self, address: &str) {
        self.set(json!({"upstream_url": address})).await;
    }

    /// The head of a request up to its last field; the caller ends it.
    pub fn head(&self, method: &str, path: &str, fields: &str) -> String {
        self.head_of(&self.vera, method, path, fields)
    }

    pub fn head_of(&self, browser: &Browser, method: &str, path: &str, fields: &str) -> String {
        let (host, base) = self
            .place
            .trim_start_matches("http://")
            .split_once('/')
            .expect("a path");
        let cookies = browser
            .cookies_of(&self.place)
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ");
        format!(
            "{method} /{base}{path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nCookie: {cookies}\r\n{fields}"
        )
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.world.portal.trim_start_matches("http://"))
            .await
            .expect("a connection")
    }

    /// Sends a whole request and reads the answer until the other side closes.
    pub async fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> String {
        let mut socket = self.connect().await;
        let request = format!(
            "{}Connection: close\r\n\r\n{body}",
            self.head(method, path, fields)
        );
        socket
            .write_all(request.as_bytes())
            .await
            .expect("a request");
        let mut answer = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut answer))
            .await
            .expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Reads until `end` has come, or the other side closed.
pub async fn until(socket: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut got = Vec::new();
    let mut byte = [0; 1];
    let reading = async {
        while !got.ends_with(end.as_bytes())
            && socket.read(&mut byte).await.is_ok_and(|read| read == 1)
        {
            got.push(byte[0]);
        }
    };
    let _ = timeout(SOON, reading).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// An app whose every connection is played by the test.
pub async fn app<F, Fut>(play: F) -> String
where
    F: Fn(TcpStream, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(play(socket, number));
            number += 1;
        }
    });
    address
}

/// An app that answers every request on a connection with the same bytes, and keeps what it got.
pub async fn says(answer: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&heads);
    let address = app(move |mut socket, _| {
        let keep = Arc::clone(&keep);
        async move {
            loop {
                let head = until(&mut socket, "\r\n\r\n").await;
                if head.is_empty() {
                    return;
                }
                keep.lock().expect("heads").push(head);
                let _ = socket.write_all(answer).await;
            }
        }
    })
    .await;
    (address, heads)
}

pub async fn socket(stage: &Stage, browser: &Browser, fields: &str) -> (String, TcpStream) {
    let origin = stage.place.split("/content/").next().expect("an origin");
    let fields = format!(
        "Origin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}"
    );
    let mut socket = stage.connect().await;
    socket
        .write_all(format!("{}\r\n", stage.head_of(browser, "GET", "ws", &fields)).as_bytes())
        .await
        .expect("a request");
    let head = until(&mut socket, "\r\n\r\n").await;
    (head, socket)
}

/// An app that accepts WebSockets with the protocol offered first, says `greeting`, and sends back
/// what it gets, byte by byte.
pub async fn socket_app(greeting: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let keep = Arc::clone(&heads);
    let address = app(move |mut socket, _| {
        let keep = Arc::clone(&keep);
        async move {
            let head = until(&mut socket, "\r\n\r\n").await;
            let protocol = head.split("sec-websocket-protocol: ").nth(1).and_then(|rest| rest.split([',', '\r']).next()).map(str::to_owned);
            keep.lock().expect("heads").push(head);
            let chosen = protocol.map(|protocol| format!("Sec-WebSocket-Protocol: {protocol}\r\n")).unwrap_or_default();
            let answer = format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{chosen}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.write_all(greeting).await;
            let (mut read, mut write) = socket.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    (address, heads)
}
