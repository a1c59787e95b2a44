//! Promises 45 and 46: what hangs, and who takes too much, costs only itself. As in `isolation`,
//! each test has a noisy neighbour and a quiet one on the same server: the program itself, whose
//! threads and open files can be counted.

use crate::harness::{
    Answer, Browser, Served, World, connect_from, http_answer, raw, until, within,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
};
use valetkey::demo::PASSWORD;

const HTML: [(&str, &str); 1] = [("accept", "text/html")];

/// How the shell starts the program.
const AS_IT_IS: &str = r#"exec "$PROGRAM" serve"#;
/// With as few open files at first as one client can use up.
const WITH_FEW_FILES: &str = r#"ulimit -Sn 256 && exec "$PROGRAM" serve"#;
/// With another list of DNS servers, in a mount namespace of its own.
const WITH_OTHER_DNS: &str = r#"exec unshare --mount sh -c 'mount --bind "$RESOLV_CONF" /etc/resolv.conf && exec "$PROGRAM" serve'"#;

/// With another `hosts` file, in a mount namespace of its own.
const WITH_OTHER_HOSTS: &str =
    r#"exec unshare --mount sh -c 'mount --bind "$HOSTS" /etc/hosts && exec "$PROGRAM" serve'"#;

/// Whether a test may have a mount namespace, which needs root.
fn has_mount_namespaces() -> bool {
    let separate = Command::new("unshare").args(["--mount", "true"]).status();
    separate.is_ok_and(|status| status.success())
}

/// The program on the data of `served`, in surroundings that a shell prepares.
struct Program(Child);

impl Program {
    /// Starts it and waits until it answers.
    async fn start(served: &Served, script: &str, more: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(served.data_dir.join("log"))
            .expect("a log");
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("PROGRAM", env!("CARGO_BIN_EXE_valetkey"))
            .env("VALETKEY_LISTEN", served.address.to_string())
            .env("VALETKEY_PUBLIC_URL", served.url())
            .env("VALETKEY_DATA_DIR", &served.data_dir)
            .envs(more.iter().copied())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(place) = &served.database {
            command.env("VALETKEY_DATABASE_URL", crate::harness::address(place));
        }
        let mut program = Self(command.spawn().expect("the program starts"));
        let answers = async {
            loop {
                let portal = Browser::new(&served.url());
                let asked = portal.try_send("GET", "/__ping__", &[], None).await;
                if asked.is_ok_and(|answer| answer.status() == 200) {
                    break;
                }
                let ended = program.0.try_wait().expect("its state");
                assert!(ended.is_none(), "{ended:?}: {}", served.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within("the program to answer", answers).await;
        program
    }

    /// The names of its threads, sorted.
    fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("its threads");
        // A thread may end while it is looked at.
        let mut names: Vec<String> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The number of its open files, connections included.
    fn files(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.0.id()));
        files.expect("its open files").count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How long the requests of quiet users took, by kind.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    /// Waits for an answer, which must be a good one, and notes its time.
    async fn note(&mut self, what: &'static str, asked: impl Future<Output = Answer>) {
        let started = Instant::now();
        let answer = within(what, asked).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        self.0.entry(what).or_default().push(started.elapsed());
    }

    /// Of each kind at least `least` were answered, nearly all of them within a second.
    fn assert_quick(&mut self, least: usize) {
        for (what, took) in &mut self.0 {
            took.sort();
            assert!(took.len() >= least, "{what}: only {}", took.len());
            // What hangs would hold them up for five seconds and more; a busy machine does not.
            let (middle, p95) = (took[took.len() / 2], took[took.len() * 95 / 100]);
            assert!(middle < Duration::from_secs(1), "{what}: {took:?}");
            assert!(p95 < Duration::from_secs(4), "{what}: {took:?}");
        }
    }
}

/// An app that answers at once, except where the path has `hang`: there it never does. Its address,
/// and how many requests wait.
async fn moody_app() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waiting);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read(&mut buffer).await {
                        Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                if head
                    .lines()
                    .next()
                    .is_some_and(|line| line.contains("hang"))
                {
                    count.fetch_add(1, Ordering::SeqCst);
                    // Until the portal hangs up.
                    while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    count.fetch_sub(1, Ordering::SeqCst);
                } else {
                    let _ = socket.write_all(&http_answer(200, "", "fine")).await;
                    let _ = socket.shutdown().await;
                }
            });
        }
    });
    (address, waiting)
}

/// An address that answers no attempt to connect: its queue is full, and nobody takes from it.
struct DeafAddress {
    url: String,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl DeafAddress {
    async fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await
    }
    async fn at(address: SocketAddr) -> Self {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.expect("a socket");
        socket.bind(address).expect("a port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        let patience = Duration::from_millis(500);
        while let Ok(joined) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            queued.push(joined.expect("a place in the queue"));
            assert!(queued.len() < 100, "the queue does not fill");
        }
        Self {
            url: format!("http://{address}"),
            _listener: listener,
            _queued: queued,
        }
    }
}

/// A DNS server that hears and never answers.
struct DeafDns {
    /// A `resolv.conf` that names it.
    file: String,
    asked: Arc<AtomicUsize>,
    _tcp: TcpListener,
}

impl DeafDns {
    /// `None` where a test may not have port 53 or a mount namespace: the resolver reads
    /// `/etc/resolv.conf`, which names no port.
    async fn start(served: &Served) -> Option<Self> {
        // An address for each process of tests.
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 53, high, low);
        let udp = UdpSocket::bind((ip, 53)).await.ok()?;
        let tcp = TcpListener::bind((ip, 53)).await.ok()?;
        if !has_mount_namespaces() {
            return None;
        }
        let file = served.data_dir.join("resolv.conf");
        // So patient that only the portal's own deadline ends a lookup.
        let text = format!("nameserver {ip}\noptions timeout:60\n");
        std::fs::write(&file, text).expect("written");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while udp.recv_from(&mut buffer).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Some(Self {
            file: file.to_string_lossy().into_owned(),
            asked,
            _tcp: tcp,
        })
    }
}

/// A new item that an app serves.
async fn publish(served: &Served, key: &str, name: &str, app: &str, access: &str) -> String {
    let body = json!({"name": name, "access_type": access, "upstream_url": app}).to_string();
    let made = served.api(key, "POST", "v1/content", &body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    made.json()["guid"].as_str().expect("a guid").to_owned()
}

/// Where an item runs: on the other loopback name.
fn place(served: &Served, item: &str) -> String {
    format!("http://localhost:{}/content/{item}/", served.address.port())
}

/// A viewer who has signed in and opened these items.
async fn viewer(served: &Served, key: &str, name: &str, items: &[&str]) -> Browser {
    let person = json!({"username": name, "email": format!("{name}@example.org"),
        "password": PASSWORD, "user_role": "viewer"});
    let made = served
        .api(key, "POST", "v1/users", &person.to_string())
        .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let browser = Browser::new(&served.url());
    browser.sign_in(name).await;
    for item in items {
        let page = browser.get(&format!("/content/{item}/")).await;
        assert_eq!(
            (page.status, page.body.as_str()),
            (200, "fine"),
            "{}",
            page.url
        );
    }
    browser
}

/// Asks for items in turn, a hundred times a second, and waits for no answer.
async fn flood(address: SocketAddr, items: Vec<String>, sent: Arc<AtomicUsize>) {
    let mut waiting = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for item in items.iter().cycle() {
        pace.tick().await;
        let sent = Arc::clone(&sent);
        let request = format!(
            "GET /content/{item}/hang HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
            address.port()
        );
        waiting.spawn(async move {
            let Ok(mut socket) = TcpStream::connect(address).await else {
                return;
            };
            if socket.write_all(request.as_bytes()).await.is_ok() {
                sent.fetch_add(1, Ordering::SeqCst);
            }
            let _ = socket.read_to_end(&mut Vec::new()).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p45_an_app_whose_name_address_or_answer_hangs_delays_only_its_own_requests() {
    let world = World::start().await;
    let (vera, token) = world.connected("vera").await;
    let (ada, bo, healthy) = (world.key("ada"), world.key("bo"), world.content(0));
    let served = world.park().await;
    let (app, waiting) = moody_app().await;
    let deaf_address = DeafAddress::start().await;
    let deaf_dns = DeafDns::start(&served).await;
    let mut settings = vec![("VALETKEY_PRIVATE_HOSTS", "127.0.0.1")];
    let script = match &deaf_dns {
        Some(dns) => {
            settings.push(("RESOLV_CONF", dns.file.as_str()));
            WITH_OTHER_DNS
        }
        None => {
            eprintln!("without names that hang: this needs root, for port 53 and `unshare`");
            AS_IT_IS
        }
    };
    let program = Program::start(&served, script, &settings).await;
    let change = json!({"upstream_url": app}).to_string();
    let path = format!("v1/content/{healthy}");
    assert_eq!(served.api(&ada, "PATCH", &path, &change).await.status, 200);
    let silent = publish(&served, &ada, "silent", &app, "all").await;
    let deaf = publish(&served, &ada, "deaf", &deaf_address.url, "all").await;
    // Many names: all who ask for one name share its lookup.
    let mut nameless = Vec::new();
    for number in 0..40 * usize::from(deaf_dns.is_some()) {
        let (name, url) = (
            format!("nameless-{number}"),
            format!("http://app-{number}.deaf.example/"),
        );
        nameless.push(publish(&served, &ada, &name, &url, "all").await);
    }
    // The quiet ones: somebody who signs in, a program, an app that asks for vera's token, vera.
    let stranger = Browser::new(&served.url());
    let address = place(&served, &healthy);
    let ask = async |times: &mut Times| {
        let page = stranger.send("GET", "/login", &HTML, None);
        times.note("the sign-in page", page).await;
        times
            .note("the API", served.api(&bo, "GET", &path, ""))
            .await;
        times
            .note("an exchange", served.exchange(&bo, &token))
            .await;
        let page = vera.send("GET", &address, &HTML, None);
        times.note("another item", page).await;
    };
    // All threads that so many requests at once need are there before the noise.
    let warm = (0..16).map(|_| {
        let ask = &ask;
        async move { ask(&mut Times::default()).await }
    });
    futures_util::future::join_all(warm).await;
    let before = program.threads();
    let sent: [Arc<AtomicUsize>; 3] = Default::default();
    let mut noise = JoinSet::new();
    for (items, sent) in [vec![silent], vec![deaf], nameless.clone()]
        .into_iter()
        .zip(&sent)
    {
        noise.spawn(flood(served.address, items, Arc::clone(sent)));
    }
    let (mut times, mut most) = (Times::default(), before.clone());
    let started = Instant::now();
    let loud = || {
        let waits = waiting.load(Ordering::SeqCst);
        let asked = deaf_dns
            .as_ref()
            .map(|dns| dns.asked.load(Ordering::SeqCst));
        let sent = sent.each_ref().map(|sent| sent.load(Ordering::SeqCst));
        let enough = waits >= 400
            && sent[..2].iter().all(|sent| *sent >= 400)
            && asked.is_none_or(|asked| asked >= nameless.len() && sent[2] >= 400);
        (
            enough,
            format!("{sent:?} sent, {waits} wait for the app, {asked:?} for names"),
        )
    };
    // For several seconds, and until the noise was what it should be.
    while started.elapsed() < Duration::from_secs(6) || !loud().0 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", loud().1);
        ask(&mut times).await;
        let now = program.threads();
        if now.len() > most.len() {
            most = now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.assert_quick(10);
    // The database's few threads may still become as many as they may be; a thread for each name
    // would be 40.
    assert!(
        most.len() <= before.len() + 12,
        "{}: {before:?} became {most:?}",
        loud().1
    );
    // Whoever asks for what hangs gets an answer in time, too.
    if let Some(item) = nameless.first() {
        let asked = Instant::now();
        let answer = stranger
            .send("GET", &place(&served, item), &HTML, None)
            .await;
        assert_eq!(answer.status, 502, "{}", answer.body);
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}

/// The setting `open_per_viewer` in these tests.
const LIMIT: usize = 20;

/// A server with that limit; an item whose app hangs where it is asked to, and another one; their
/// viewers vera and viktor; how many requests wait at the app.
async fn limited() -> (Served, [String; 2], [Browser; 2], Arc<AtomicUsize>) {
    let limit = LIMIT.to_string();
    let served = Served::start(&[
        ("VALETKEY_OPEN_PER_VIEWER", limit.as_str()),
        ("VALETKEY_PRIVATE_HOSTS", "127.0.0.1"),
    ])
    .await;
    let key = served.administrator("ada");
    let (app, waiting) = moody_app().await;
    let item = publish(&served, &key, "one", &app, "logged_in").await;
    let other = publish(&served, &key, "other", &app, "logged_in").await;
    let vera = viewer(&served, &key, "vera", &[&item, &other]).await;
    let viktor = viewer(&served, &key, "viktor", &[&item, &other]).await;
    (served, [item, other], [vera, viktor], waiting)
}

/// The head of a request of a viewer's, without the empty line.
fn head_of(viewer: &Browser, address: &str) -> String {
    let (host, path) = address
        .trim_start_matches("http://")
        .split_once('/')
        .expect("a path");
    let cookie: String = viewer
        .cookies_of(address)
        .iter()
        .map(|(name, value)| format!("{name}={value}; "))
        .collect();
    format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie}x=y\r\nAccept: text/html\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn p45_an_app_is_reached_although_one_of_its_two_addresses_hangs() {
    if !has_mount_namespaces() {
        eprintln!("not tried: this needs root, for `unshare`");
        return;
    }
    let served = Served::prepare(&[]);
    let ada = served.administrator("ada");
    let hosts = served.data_dir.join("hosts");
    let listed = "127.0.0.1 localhost\n127.0.0.1 dual.example\n::1 dual.example\n";
    std::fs::write(&hosts, listed).expect("written");
    let settings = [
        ("VALETKEY_PRIVATE_HOSTS", "dual.example"),
        ("HOSTS", &hosts.to_string_lossy()),
    ];
    let _program = Program::start(&served, WITH_OTHER_HOSTS, &settings).await;
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    );
    // Whichever is tried first, it hangs for one of the two items.
    for (name, works, hangs) in [("four", v4, v6), ("six", v6, v4)] {
        let listener = TcpListener::bind((works, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let _deaf = DeafAddress::at((hangs, port).into()).await;
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(&http_answer(200, "", "fine")).await;
                let _ = socket.shutdown().await;
            }
        });
        let app = format!("http://dual.example:{port}/");
        let item = publish(&served, &ada, name, &app, "all").await;
        let browser = Browser::new(&served.url());
        let started = Instant::now();
        let address = place(&served, &item);
        let page = browser.send("GET", &address, &HTML, None);
        let page = within("the page of the app", page).await;
        let took = started.elapsed();
        assert_eq!((page.status, page.body.as_str()), (200, "fine"));
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_a_viewer_with_too_much_open_gets_429_and_other_viewers_are_served() {
    let (served, [item, other], [vera, viktor], waiting) = limited().await;
    let (item, other) = (place(&served, &item), place(&served, &other));
    let hang = format!("{item}hang");
    let vera = Arc::new(vera);
    let mut open = JoinSet::new();
    for number in 1..=LIMIT {
        let (vera, hang) = (Arc::clone(&vera), hang.clone());
        open.spawn(async move { vera.send("GET", &hang, &HTML, None).await.status });
        until("a request to reach the app", || {
            waiting.load(Ordering::SeqCst) == number
        })
        .await;
    }
    // Beyond it, nothing of hers reaches the app, in whatever form.
    for address in [&hang, &item] {
        for _ in 0..15 {
            let refused = within("a refusal", vera.send("GET", address, &HTML, None)).await;
            assert_eq!(refused.status, 429, "{}", refused.body);
        }
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let socket = format!("{}{upgrade}", head_of(&vera, &hang));
    let refused = raw(&served.url(), socket.as_bytes(), Duration::from_secs(10)).await;
    assert!(refused.contains("you have too much open here"), "{refused}");
    assert_eq!(waiting.load(Ordering::SeqCst), LIMIT);
    // Others are served at the same item, and so is she at another one.
    let mut times = Times::default();
    for _ in 0..30 {
        let page = viktor.send("GET", &item, &HTML, None);
        times.note("another viewer", page).await;
        let page = vera.send("GET", &other, &HTML, None);
        times.note("another item", page).await;
    }
    times.assert_quick(30);
    assert!(open.try_join_next().is_none(), "they all still wait");
    // When she has left, what she held is free again.
    drop(open);
    let served_again = async {
        while vera.send("GET", &item, &HTML, None).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within("the viewer to be served again", served_again).await;
    until("the app to be left", || waiting.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_requests_of_one_viewer_that_arrive_at_once_are_counted() {
    let (served, [item, _], [vera, viktor], waiting) = limited().await;
    let item = place(&served, &item);
    let request = format!("{}\r\n", head_of(&vera, &format!("{item}hang")));
    let mut sockets = Vec::new();
    for _ in 0..10 * LIMIT {
        let socket = TcpStream::connect(served.address).await;
        sockets.push(socket.expect("a connection"));
    }
    let refused = Arc::new(AtomicUsize::new(0));
    let mut noise = JoinSet::new();
    for mut socket in sockets {
        let (request, refused) = (request.clone(), Arc::clone(&refused));
        noise.spawn(async move {
            socket.write_all(request.as_bytes()).await.expect("sent");
            let mut start = [0; 12];
            if socket.read_exact(&mut start).await.is_ok() && start.ends_with(b" 429") {
                refused.fetch_add(1, Ordering::SeqCst);
            }
            // Open until the end of the test.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        });
    }
    until("every request to wait or to be refused", || {
        waiting.load(Ordering::SeqCst) + refused.load(Ordering::SeqCst) == 10 * LIMIT
    })
    .await;
    assert_eq!(waiting.load(Ordering::SeqCst), LIMIT);
    let page = within("another viewer", viktor.send("GET", &item, &HTML, None)).await;
    assert_eq!(page.status, 200, "{}", page.body);
}

/// Opens connections and sends half a head on each, again and again until it is over. The longest
/// time that one was open.
async fn half_heads(
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::SeqCst) {
        let started = Instant::now();
        let Ok(mut socket) = TcpStream::connect(address).await else {
            // The machine has none left for now.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.fetch_add(1, Ordering::SeqCst);
        let _ = socket.write_all(b"GET /login HTTP/1.1\r\nHost: half").await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
        open.fetch_sub(1, Ordering::SeqCst);
        longest = longest.max(started.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn p46_half_sent_heads_of_one_address_leave_room_for_another() {
    const CONNECTIONS: usize = 600;
    let served = Served::prepare(&[]);
    served.administrator("ada");
    let program = Program::start(&served, WITH_FEW_FILES, &[]).await;
    let (open, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut noise = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (open, over) = (Arc::clone(&open), Arc::clone(&over));
        noise.spawn(half_heads(served.address, open, over));
    }
    until("most half heads to be there", || {
        open.load(Ordering::SeqCst) >= CONNECTIONS * 9 / 10
    })
    .await;
    // The quiet one comes from another address of this machine.
    let quiet = async || {
        let mut socket = connect_from("127.0.0.2", served.address).await;
        let request = format!(
            "GET /login HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
            served.address
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    // Longer than the deadline of a head, twice.
    let (started, mut took, mut files) = (Instant::now(), Vec::new(), 0);
    while started.elapsed() < Duration::from_secs(12) {
        let asked = Instant::now();
        within("the sign-in page", quiet()).await;
        took.push(asked.elapsed());
        files = files.max(program.files());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    let p95 = took[took.len() * 95 / 100];
    assert!(p95 < Duration::from_secs(1), "{took:?}");
    assert!(
        files > CONNECTIONS / 2,
        "the server held {files} connections at most"
    );
    over.store(true, Ordering::SeqCst);
    let ended = async {
        let mut longest = Duration::ZERO;
        while let Some(lasted) = noise.join_next().await {
            longest = longest.max(lasted.expect("no panic"));
        }
        longest
    };
    let longest = within("all half heads to be sent away", ended).await;
    assert!(longest < Duration::from_secs(20), "{longest:?}");
}
