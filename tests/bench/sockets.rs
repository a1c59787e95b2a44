//! WebSockets for benchmarks: an app that sends back what it gets, and clients that open many
//! through a proxy. After the handshake only bytes are counted, which is what proxies carry.
//!
//!   sockets serve PORT
//!   sockets echo HOST:PORT PATH COUNT SECONDS [FIELD…]   round trips of 64 bytes a second, and the 99th percentile in µs
//!   sockets rest HOST:PORT PATH COUNT [FIELD…]           opens them, says so, and waits for a line on standard input

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

async fn head(socket: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut byte = [0; 1];
    while !got.ends_with(b"\r\n\r\n") && socket.read(&mut byte).await.is_ok_and(|read| read == 1) {
        got.push(byte[0]);
    }
    String::from_utf8_lossy(&got).into_owned()
}

async fn open(address: &str, path: &str, fields: &[String]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.set_nodelay(true).expect("no delay");
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let request = format!(
        "GET {path} HTTP/1.1\r\n{fields}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("a request");
    let answer = head(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    socket
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("a port");
    loop {
        let Ok((mut socket, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            drop(socket.set_nodelay(true));
            head(&mut socket).await;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            drop(socket.write_all(answer.as_bytes()).await);
            // Small: thousands of them rest beside what is measured.
            let mut buffer = [0; 256];
            while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                if socket.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn echo(address: &str, path: &str, count: usize, seconds: u64, fields: &[String]) {
    let rounds = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (mut socket, rounds) = (open(address, path, fields).await, Arc::clone(&rounds));
        tasks.push(tokio::spawn(async move {
            // A masked frame of 64 bytes.
            let mut frame = vec![0x82, 0x80 | 58, 0, 0, 0, 0];
            frame.resize(64, 7);
            let (mut back, mut took) = (vec![0; 64], Vec::new());
            while Instant::now() < end {
                let began = Instant::now();
                socket.write_all(&frame).await.expect("sent");
                socket.read_exact(&mut back).await.expect("back");
                took.push(began.elapsed());
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            took
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a client"));
    }
    took.sort_unstable();
    println!(
        "{} {}",
        rounds.load(Ordering::Relaxed) / seconds,
        took[took.len() * 99 / 100].as_micros()
    );
}

async fn rest(address: &str, path: &str, count: usize, fields: &[String]) {
    let mut open_ones = Vec::new();
    for _ in 0..count {
        open_ones.push(open(address, path, fields).await);
    }
    println!("open");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve(port.parse().expect("a port")).await,
        ["echo", address, path, count, seconds, ..] => {
            echo(
                address,
                path,
                count.parse().expect("a number"),
                seconds.parse().expect("a number"),
                &arguments[5..],
            )
            .await;
        }
        ["rest", address, path, count, ..] => {
            rest(
                address,
                path,
                count.parse().expect("a number"),
                &arguments[4..],
            )
            .await
        }
        _ => panic!("see the head of tests/bench/sockets.rs"),
    }
}
