//! The change log: which cached decisions are still valid.
//!
//! A write that can change a decision names its [`Subject`]s: the person, browser session, content
//! item, … that it changed. They are stored in the table `changes` by the same transaction. Each
//! process learns of its own writes at their commit and of those of other processes by reading the
//! table every [`POLL_INTERVAL`], and forgets only what depends on a changed subject.
//!
//! **Validity.** [`ChangeLog`] counts changes in ticks and remembers the tick of the last change of
//! each subject. A cached value keeps the tick that was read before it was loaded, and the slots of
//! the subjects that it depends on; it is valid while none of them changed after that tick. So a
//! value that was loaded before a change and stored after it is never used. Subjects share
//! [`SLOTS`] slots by hash: a collision costs a reload, never a stale value.
//!
//! **Certainty.** Without a successful look within [`MAX_AGE`], nothing cached is valid. A new
//! connection, a table that lost rows, or transaction numbers that went back (a failover to a
//! server that was behind) invalidate everything.
//!
//! **Why polling.** PostgreSQL's `NOTIFY` takes a lock on the whole database until the commit is
//! flushed, so all writers of a cluster would queue up again. A look costs one indexed query.
//! Sequence numbers become visible out of order on PostgreSQL, so a look reads by transaction
//! number, from the oldest transaction that was open at the look before.

use super::{
    Error, Inner,
    backend::{AnyConnection, connect},
    schema,
};
use crate::domain::{
    Id,
    connection::Connection,
    content::Content,
    integration::Integration,
    person::{Person, Session},
};
use crate::measures;
use diesel::{QueryableByName, RunQueryDsl as _, prelude::*, sql_query, sql_types};
use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How often a process looks for changes of other processes.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum age of the last look. Beyond it, no cached value is valid.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Age of the last look at which its connection counts as hanging and is replaced.
const HANGING: Duration = Duration::from_secs(3);
/// Followers that hang at the same time, at most.
const MAX_FOLLOWERS: usize = 8;
/// Slots that subjects share; a power of two. 8 bytes each.
const SLOTS: usize = 1 << 17;
/// How long a commit whose outcome is unknown may still take effect.
const DOUBT: Duration = Duration::from_secs(60);
/// Subjects of one row. More of them are written as [`Subject::Everything`].
const MAX_SUBJECTS: usize = 500;
/// How long rows are kept. A process that looks less often finds its last row missing and forgets
/// everything.
pub(super) const RETENTION: Duration = Duration::from_secs(600);

/// What a write changed, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Anything may have changed: a restore, another program.
    Everything,
    /// The sealing keys.
    Keyring,
    /// The list of content items and their processes; implied by [`Subject::Content`].
    Contents,
    /// A person: role, lock, groups, consents.
    Person(Id<Person>),
    /// A browser session.
    Session(Id<Session>),
    /// An API key, by its row number.
    ApiKey(i64),
    /// A content item: settings, access list, associations.
    Content(Id<Content>),
    Integration(Id<Integration>),
    /// A connection: its state, not its tokens.
    Connection(Id<Connection>),
}

impl std::fmt::Display for Subject {
    /// The form in the table.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Everything => f.write_str("everything"),
            Subject::Keyring => f.write_str("keyring"),
            Subject::Contents => f.write_str("contents"),
            Subject::Person(id) => write!(f, "person:{id}"),
            Subject::Session(id) => write!(f, "session:{id}"),
            Subject::ApiKey(number) => write!(f, "key:{number}"),
            Subject::Content(id) => write!(f, "content:{id}"),
            Subject::Integration(id) => write!(f, "integration:{id}"),
            Subject::Connection(id) => write!(f, "connection:{id}"),
        }
    }
}

impl Subject {
    /// The inverse of `Display`. A text that this version does not know is [`Subject::Everything`].
    fn parse(text: &str) -> Self {
        let (kind, id) = text.split_once(':').unwrap_or((text, ""));
        let known = match kind {
            "keyring" => Some(Subject::Keyring),
            "contents" => Some(Subject::Contents),
            "person" => id.parse().ok().map(Subject::Person),
            "session" => id.parse().ok().map(Subject::Session),
            "key" => id.parse().ok().map(Subject::ApiKey),
            "content" => id.parse().ok().map(Subject::Content),
            "integration" => id.parse().ok().map(Subject::Integration),
            "connection" => id.parse().ok().map(Subject::Connection),
            _ => None,
        };
        known.unwrap_or(Subject::Everything)
    }

    /// The slot of this subject. [`Subject::Everything`] needs none: it is checked for every value.
    pub fn slot(self) -> Slot {
        let (kind, value) = match self {
            Subject::Everything => (0, 0),
            Subject::Keyring => (1, 0),
            Subject::Contents => (2, 0),
            Subject::Person(id) => (3, id.as_u128()),
            Subject::Session(id) => (4, id.as_u128()),
            Subject::ApiKey(number) => (5, number.unsigned_abs().into()),
            Subject::Content(id) => (6, id.as_u128()),
            Subject::Integration(id) => (7, id.as_u128()),
            Subject::Connection(id) => (8, id.as_u128()),
        };
        // Fibonacci hashing: ids are random, numbers are not.
        let low = u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
        let mixed = low
            .wrapping_add(kind << 40)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Slot(u32::try_from(mixed >> (64 - SLOTS.trailing_zeros())).unwrap_or(0))
    }
}

/// Where [`ChangeLog`] remembers the last change of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// A moment between two changes. The default is "never": no value that was loaded then is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(u64);

/// What this process knows of changes.
pub struct ChangeLog {
    /// The tick of the newest change.
    newest: AtomicU64,
    /// The tick of the last [`Subject::Everything`].
    everything: AtomicU64,
    /// For each slot, the tick of the last change of one of its subjects.
    slots: Box<[AtomicU64]>,
    /// When the table was last read, in milliseconds since `started`, plus one; 0 is never.
    looked: AtomicU64,
    started: Instant,
    /// The name of this process in the table.
    process: String,
    /// Until when it is not known whether a failed commit of this process took effect, in
    /// milliseconds since `started`.
    doubtful_until: AtomicU64,
}

impl ChangeLog {
    pub(super) fn new() -> Self {
        Self {
            newest: AtomicU64::new(1),
            everything: AtomicU64::new(1),
            slots: std::iter::repeat_with(AtomicU64::default)
                .take(SLOTS)
                .collect(),
            looked: AtomicU64::new(0),
            started: Instant::now(),
            process: Id::<ChangeLog>::random().to_string(),
            doubtful_until: AtomicU64::new(0),
        }
    }

    /// Notes that a commit failed: the database may still carry it out, after [`Self::note`] was
    /// called. For [`DOUBT`] the follower treats rows of this process like those of others.
    pub(super) fn doubt(&self) {
        let until = self.started.elapsed().saturating_add(DOUBT).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.doubtful_until.fetch_max(until, Ordering::AcqRel);
    }

    fn is_in_doubt(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now < self.doubtful_until.load(Ordering::Acquire)
    }

    /// Time since the table was last read; `None` if it never was.
    fn age(&self) -> Option<Duration> {
        let looked = self.looked.load(Ordering::Acquire).checked_sub(1)?;
        Some(
            self.started
                .elapsed()
                .saturating_sub(Duration::from_millis(looked)),
        )
    }

    /// The current tick. Read it before loading what is to be cached. "Never" while this process
    /// cannot be sure of the changes of others.
    pub fn now(&self) -> Tick {
        if self.age().is_some_and(|age| age < MAX_AGE) {
            Tick(self.newest.load(Ordering::Acquire))
        } else {
            Tick::default()
        }
    }

    /// Whether a value that was loaded at `since` is valid at `now` (from [`ChangeLog::now`]): none
    /// of the subjects it depends on changed.
    pub fn is_valid(&self, since: Tick, now: Tick, slots: &[Slot]) -> bool {
        let unchanged = |slot: &Slot| {
            let slot = self.slots.get(slot.0 as usize);
            slot.is_some_and(|at| at.load(Ordering::Acquire) <= since.0)
        };
        since != Tick::default()
            && now != Tick::default()
            && self.everything.load(Ordering::Acquire) <= since.0
            && slots.iter().all(unchanged)
    }

    /// Notes a change.
    pub(super) fn note(&self, subjects: &[Subject]) {
        let tick = self.newest.fetch_add(1, Ordering::AcqRel) + 1;
        for subject in subjects {
            match subject {
                Subject::Everything => drop(self.everything.fetch_max(tick, Ordering::AcqRel)),
                Subject::Content(_) => {
                    self.note_slot(subject.slot(), tick);
                    self.note_slot(Subject::Contents.slot(), tick);
                }
                _ => self.note_slot(subject.slot(), tick),
            }
        }
    }

    fn note_slot(&self, slot: Slot, tick: u64) {
        if let Some(slot) = self.slots.get(slot.0 as usize) {
            slot.fetch_max(tick, Ordering::AcqRel);
        }
    }

    /// Notes that the table was read completely at `at` (since `started`).
    fn note_look(&self, at: Duration) {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        self.looked.fetch_max(millis + 1, Ordering::AcqRel);
    }

    /// Stores the subjects in the transaction that changed them.
    pub(super) fn record(
        &self,
        connection: &mut AnyConnection,
        subjects: &[Subject],
    ) -> Result<(), Error> {
        let mut texts: Vec<String> = subjects.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts.dedup();
        let text = if texts.len() > MAX_SUBJECTS {
            Subject::Everything.to_string()
        } else {
            texts.join(" ")
        };
        diesel::insert_into(schema::changes::table)
            .values((
                schema::changes::process.eq(&self.process),
                schema::changes::subjects.eq(text),
            ))
            .execute(connection)?;
        Ok(())
    }
}

#[derive(QueryableByName)]
struct ChangeRow {
    #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
    seq: Option<i64>,
    #[diesel(sql_type = sql_types::Nullable<sql_types::Text>)]
    process: Option<String>,
    #[diesel(sql_type = sql_types::Nullable<sql_types::Text>)]
    subjects: Option<String>,
    /// Since the change was written, in milliseconds, by the database's clock.
    #[diesel(sql_type = sql_types::Nullable<sql_types::BigInt>)]
    age: Option<i64>,
    /// SQLite: 0. PostgreSQL: the oldest transaction that was open.
    #[diesel(sql_type = sql_types::BigInt)]
    low: i64,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = sql_types::BigInt)]
    data_version: i64,
}

/// How far a follower has read.
#[derive(Default)]
struct Position {
    /// SQLite's `data_version` at the last look: unchanged means that no other connection wrote.
    version: Option<i64>,
    /// The newest row seen, which must still be there at the next look; 0 for an empty table, `None`
    /// before the first look.
    anchor: Option<i64>,
    /// PostgreSQL: rows of transactions from this one on are read again.
    low: i64,
    /// The rows that were read already.
    seen: HashSet<i64>,
}

/// Reads the table with a connection of its own.
struct Follower {
    connection: AnyConnection,
    position: Position,
}

impl Follower {
    /// Connects and takes the current end of the table as position. The caller then invalidates
    /// everything.
    fn start(inner: &Inner) -> Result<Self, Error> {
        let mut connection =
            connect(&inner.place).map_err(|error| Error::Busy(error.to_string()))?;
        let mut position = Position::default();
        for row in look(&mut connection, &mut position)? {
            position.anchor = position.anchor.max(row.seq);
            position.seen.extend(row.seq);
            position.low = row.low;
        }
        position.anchor = position.anchor.or(Some(0));
        Ok(Self {
            connection,
            position,
        })
    }

    /// Reads and notes what others changed. `false` if rows are missing or went back: the caller
    /// starts anew.
    fn look(&mut self, log: &ChangeLog) -> Result<bool, Error> {
        let at = log.started.elapsed();
        let position = &mut self.position;
        if matches!(self.connection, AnyConnection::Sqlite(_))
            && position.version == Some(data_version(&mut self.connection)?)
        {
            log.note_look(at);
            return Ok(true);
        }
        let rows = look(&mut self.connection, position)?;
        let low = rows.first().map_or(position.low, |row| row.low);
        let anchor = position.anchor.unwrap_or(0);
        let there = |row: &ChangeRow| row.seq == Some(anchor);
        if (anchor != 0 && !rows.iter().any(there)) || low < position.low {
            return Ok(false);
        }
        let mut seen = HashSet::with_capacity(rows.len());
        for row in rows {
            let (Some(seq), Some(process), Some(subjects)) = (row.seq, row.process, row.subjects)
            else {
                continue;
            };
            seen.insert(seq);
            let is_ours = process == log.process && !log.is_in_doubt();
            if !is_ours && !position.seen.contains(&seq) {
                let subjects: Vec<Subject> = subjects.split(' ').map(Subject::parse).collect();
                log.note(&subjects);
                let age = row.age.and_then(|age| u64::try_from(age).ok());
                measures::invalidation(Duration::from_millis(age.unwrap_or(0)));
            }
            position.anchor = position.anchor.max(Some(seq));
        }
        (position.low, position.seen) = (low, seen);
        log.note_look(at);
        Ok(true)
    }
}

fn data_version(connection: &mut AnyConnection) -> Result<i64, Error> {
    let row: Version = sql_query("PRAGMA data_version").get_result(connection)?;
    Ok(row.data_version)
}

/// The rows since a position, with its anchor; for a position at the start only the newest row, or
/// on PostgreSQL those of transactions since the oldest open one.
fn look(connection: &mut AnyConnection, position: &mut Position) -> Result<Vec<ChangeRow>, Error> {
    match connection {
        AnyConnection::Sqlite(_) => {
            position.version = Some(data_version(connection)?);
            let age = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - at";
            let text = match position.anchor {
                None => format!(
                    "SELECT seq, process, subjects, {age} AS age, 0 AS low FROM changes ORDER BY seq DESC LIMIT 1"
                ),
                Some(anchor) => format!(
                    "SELECT seq, process, subjects, {age} AS age, 0 AS low FROM changes WHERE seq >= {anchor} ORDER BY seq"
                ),
            };
            Ok(sql_query(text).load(connection)?)
        }
        #[cfg(feature = "postgres")]
        AnyConnection::Postgresql(_) => {
            // One statement, so one snapshot: what is not visible yet has a number from `low` on.
            let from = if position.low == 0 {
                "s.low".to_owned()
            } else {
                format!("'{}'::xid8", position.low)
            };
            let text = format!(
                "SELECT c.seq, c.process, c.subjects, \
                 (extract(epoch FROM clock_timestamp()) * 1000)::bigint - c.at AS age, \
                 s.low::text::bigint AS low \
                 FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS low) s \
                 LEFT JOIN changes c ON c.tx >= {from} OR c.seq = {anchor}",
                anchor = match position.anchor {
                    None => "(SELECT max(seq) FROM changes)".to_owned(),
                    Some(anchor) => anchor.to_string(),
                },
            );
            Ok(sql_query(text).load(connection)?)
        }
    }
}

/// Starts to follow the table on a thread of its own, which ends with the store. [`supervise`] must
/// be called from time to time.
pub(super) fn follow(inner: &Arc<Inner>) -> std::io::Result<()> {
    let weak = Arc::downgrade(inner);
    inner.followers.fetch_add(1, Ordering::AcqRel);
    let turn = inner.turn.fetch_add(1, Ordering::AcqRel) + 1;
    std::thread::Builder::new()
        .name("changes".into())
        .spawn(move || {
            run(&weak, turn);
            if let Some(inner) = weak.upgrade() {
                inner.followers.fetch_sub(1, Ordering::AcqRel);
            }
        })
        .map(drop)
}

/// Replaces a follower whose connection hangs.
pub(super) fn supervise(inner: &Arc<Inner>) {
    let hangs = inner.changes.age().is_none_or(|age| age > HANGING);
    let since = inner.replaced.load(Ordering::Acquire);
    let now = u64::try_from(inner.changes.started.elapsed().as_millis()).unwrap_or(0);
    let rested = u128::from(now.saturating_sub(since)) > HANGING.as_millis();
    if hangs && rested && inner.followers.load(Ordering::Acquire) < MAX_FOLLOWERS {
        inner.replaced.store(now, Ordering::Release);
        tracing::warn!("the connection that follows changes does not answer; a new one is opened");
        if let Err(error) = follow(inner) {
            tracing::error!(%error, "cannot follow changes: nothing is cached");
        }
    }
}

/// Follows until the store is dropped or another follower took over.
fn run(weak: &Weak<Inner>, turn: usize) {
    let mut follower: Option<Follower> = None;
    let mut failing = false;
    loop {
        {
            let Some(inner) = weak.upgrade() else { return };
            if inner.turn.load(Ordering::Acquire) != turn {
                return;
            }
            let looked = match follower.as_mut() {
                Some(follower) => follower.look(&inner.changes),
                None => Ok(false),
            };
            let ended = match looked {
                Ok(true) => None,
                Ok(false) => match Follower::start(&inner) {
                    Ok(started) => {
                        follower = Some(started);
                        inner.changes.note(&[Subject::Everything]);
                        // The look right after it is the first that counts.
                        continue;
                    }
                    Err(error) => Some(error),
                },
                Err(error) => Some(error),
            };
            if let Some(error) = ended {
                follower = None;
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(reason = %error, "the database does not answer: nothing cached counts");
                }
            } else {
                failing = false;
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Counts followers: see [`follow`].
pub(super) type Count = AtomicUsize;

#[cfg(test)]
mod tests {
    use super::*;

    fn sure() -> ChangeLog {
        let log = ChangeLog::new();
        log.note_look(log.started.elapsed());
        log
    }

    #[test]
    fn a_change_invalidates_what_depends_on_it_and_nothing_else() {
        let log = sure();
        let (one, other) = (Subject::Person(Id::random()), Subject::Person(Id::random()));
        let loaded = log.now();
        log.note(&[one]);
        assert!(!log.is_valid(loaded, log.now(), &[one.slot()]));
        assert!(!log.is_valid(loaded, log.now(), &[other.slot(), one.slot()]));
        assert!(log.is_valid(loaded, log.now(), &[other.slot()]));
        assert!(log.is_valid(log.now(), log.now(), &[one.slot()]));
        log.note(&[Subject::Everything]);
        assert!(!log.is_valid(loaded, log.now(), &[other.slot()]));
    }
    #[test]
    fn a_process_that_is_not_sure_has_nothing_valid() {
        let log = ChangeLog::new();
        assert_eq!(log.now(), Tick::default());
        assert!(!log.is_valid(Tick(5), log.now(), &[]));
        assert!(!log.is_valid(log.now(), Tick(5), &[]));
        log.note_look(log.started.elapsed());
        assert!(log.is_valid(log.now(), log.now(), &[]));
    }
    #[test]
    fn subjects_are_read_back_and_unknown_ones_mean_everything() {
        for subject in [
            Subject::Everything,
            Subject::Keyring,
            Subject::Contents,
            Subject::Person(Id::random()),
            Subject::Session(Id::random()),
            Subject::ApiKey(17),
            Subject::Content(Id::random()),
            Subject::Integration(Id::random()),
            Subject::Connection(Id::random()),
        ] {
            assert_eq!(Subject::parse(&subject.to_string()), subject);
        }
        assert_eq!(Subject::parse("person:nonsense"), Subject::Everything);
        assert_eq!(Subject::parse("planet:mars"), Subject::Everything);
    }

    #[test]
    fn no_change_is_missed_in_a_table_that_was_empty() {
        use super::super::{DatabaseUrl, Store};
        let folder = std::env::temp_dir().join(format!("valetkey-changes-{}", Id::<()>::random()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = DatabaseUrl::Sqlite(folder.join("valetkey.db"));
        let (reader, writer) = (Store::open(&place).unwrap(), Store::open(&place).unwrap());
        let mut follower = Follower::start(&reader.0).unwrap();
        assert!(follower.look(reader.changes()).unwrap());
        let subjects = [Subject::ApiKey(1), Subject::ApiKey(2), Subject::ApiKey(3)];
        let before = reader.changes().now();
        let mut connection = connect(&place).unwrap();
        for subject in subjects {
            writer
                .0
                .changes
                .record(&mut connection, &[subject])
                .unwrap();
        }
        assert!(follower.look(reader.changes()).unwrap());
        for subject in subjects {
            let now = reader.changes().now();
            assert!(!reader.changes().is_valid(before, now, &[subject.slot()]));
        }
        // Rows that are gone are noticed.
        sql_query("DELETE FROM changes")
            .execute(&mut connection)
            .unwrap();
        assert!(!follower.look(reader.changes()).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Two processes on one database. One caches two values, the other changes them, and the look
    /// for changes stops at random times without a word. A cached value that is used is never older
    /// than a second.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_interleaving_serves_a_value_that_is_older_than_a_second() {
        use super::super::{DatabaseUrl, Store};
        let folder = std::env::temp_dir().join(format!("valetkey-changes-{}", Id::<()>::random()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = DatabaseUrl::Sqlite(folder.join("valetkey.db"));
        let (reader, writer) = (Store::open(&place).unwrap(), Store::open(&place).unwrap());
        reader.follow_changes().unwrap();
        let subjects = [Subject::ApiKey(1), Subject::ApiKey(2)];
        // For each value: when which number was committed.
        let mut history: [Vec<(Instant, i64)>; 2] = Default::default();
        let mut cached: [Option<(Tick, i64)>; 2] = [None, None];
        let mut served = [0, 0];
        let mut random = proptest::test_runner::TestRng::from_seed(
            proptest::test_runner::RngAlgorithm::ChaCha,
            &[7; 32],
        );
        let started = Instant::now();
        let mut number = 0;
        while started.elapsed() < Duration::from_secs(6) {
            use proptest::prelude::Rng as _;
            let which = usize::from(random.next_u32() % 2 == 1);
            let (name, subject) = (format!("value{which}"), subjects[which]);
            match random.next_u32() % 100 {
                0..10 => {
                    number += 1;
                    writer
                        .write(move |db| {
                            let text = number.to_string();
                            diesel::delete(schema::meta::table.find(&name)).execute(db.0)?;
                            diesel::insert_into(schema::meta::table)
                                .values((
                                    schema::meta::name.eq(&name),
                                    schema::meta::value.eq(text),
                                ))
                                .execute(db.0)?;
                            db.changed(subject);
                            Ok::<_, Error>(())
                        })
                        .await
                        .unwrap();
                    history[which].push((Instant::now(), number));
                }
                // The look stops; after a while another follower takes over.
                10 => {
                    reader.0.turn.fetch_add(1, Ordering::AcqRel);
                }
                11..14 => reader.follow_changes().unwrap(),
                14..40 => tokio::time::sleep(Duration::from_millis(3)).await,
                _ => {
                    let now = reader.changes().now();
                    let valid = cached[which].filter(|(since, _)| {
                        reader.changes().is_valid(*since, now, &[subject.slot()])
                    });
                    if let Some((_, value)) = valid {
                        served[1] += 1;
                        // The first number that was committed after the served one.
                        let newer = history[which].iter().find(|(_, newer)| *newer > value);
                        if let Some((at, _)) = newer {
                            assert!(
                                at.elapsed() < Duration::from_millis(1200),
                                "{:?}",
                                at.elapsed()
                            );
                        }
                        continue;
                    }
                    served[0] += 1;
                    let value = reader.read(move |db| Store::meta(db, &name)).await.unwrap();
                    let value = value.map_or(0, |text| text.parse().unwrap());
                    cached[which] = Some((now, value));
                }
            }
        }
        assert!(served.iter().all(|count| *count > 10), "{served:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
