//! The audit log, and the hourly counts of exchanges.
//!
//! Records are inserted without looking at each other, so that writers do not wait for one another.
//! Each carries a proof, a keyed hash of its fields, so that write access to the database is not
//! enough to add one. Once a second the leader seals the new ones in a block: a keyed hash over the seal of the block
//! before and all fields of the records, in the order of their numbers. A record that becomes
//! visible late, with a lower number, is in a later block. Records are never changed; the oldest
//! blocks are deleted where the operator limits how long they are kept ([`cut`]). When a person is
//! deleted, their names in records are replaced by a pseudonym ([`pseudonymise`]): the block keeps its
//! seal, which the next block covers, and gets a second one over it and over the records as they are now.

use super::{
    Db, Error, Store, damaged_row, id,
    schema::{audit, audit_blocks, erasures, exchange_hours},
};
use crate::{
    domain::{
        Id, Timestamp,
        audit::{Action, Event, Outcome},
        content::Content,
        integration::Integration,
        person::Person,
    },
    vault::audit_key::{AuditKey, Sealing},
};
use diesel::prelude::*;

#[diesel::declare_sql_function]
extern "SQL" {
    /// Lower case; in SQLite for ASCII letters only.
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

/// The key that seals the log.
fn key<'a>(db: &Db<'a>) -> Result<&'a AuditKey, Error> {
    db.2.ok_or_else(|| Error::Other("the key of the audit log is not known yet".into()))
}

/// Appends a record; `event.number` and `event.block` are ignored.
pub fn insert(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
    // PostgreSQL cannot store NUL in text.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    let mut row = Row {
        number: 0,
        at: event.at.0,
        action: event.action.as_str().to_owned(),
        actor: event.actor.map(|actor| actor.to_string()),
        actor_name: clean(&event.actor_name),
        subject: clean(&event.subject),
        detail: clean(&event.detail),
        address: clean(&event.address),
        correlation: clean(&event.correlation),
        outcome: event.outcome.as_str().to_owned(),
        proof: String::new(),
        block: None,
    };
    row.proof = row.expected_proof(key(db)?);
    diesel::insert_into(audit::table)
        .values((
            audit::at.eq(row.at),
            audit::action.eq(&row.action),
            audit::actor.eq(&row.actor),
            audit::actor_name.eq(&row.actor_name),
            audit::subject.eq(&row.subject),
            audit::detail.eq(&row.detail),
            audit::address.eq(&row.address),
            audit::correlation.eq(&row.correlation),
            audit::outcome.eq(&row.outcome),
            audit::proof.eq(&row.proof),
        ))
        .execute(db.0)?;
    Ok(())
}

/// Records in one block, at most.
const MAX_BLOCK: i64 = 5000;
/// The block of records that this portal did not write.
const FOREIGN: i64 = 0;

/// The seal of a block over these rows.
fn seal_of(key: &AuditKey, block: i64, sealed_at: i64, before: &str, rows: &[Row]) -> String {
    let mut seal = key.block();
    seal.add(&block.to_string());
    seal.add(&sealed_at.to_string());
    seal.add(before);
    seal.add(&rows.len().to_string());
    for row in rows {
        seal.add(&row.number.to_string());
        row.add_to(&mut seal);
    }
    seal.seal()
}

/// The second seal of a block whose records carry a pseudonym.
fn reseal_of(key: &AuditKey, block: &BlockRow, before: &str, rows: &[Row]) -> String {
    let mut seal = key.reseal();
    seal.add(&block.number.to_string());
    seal.add(&block.sealed_at.to_string());
    seal.add(before);
    seal.add(&block.seal);
    seal.add(&rows.len().to_string());
    for row in rows {
        seal.add(&row.number.to_string());
        row.add_to(&mut seal);
    }
    seal.seal()
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_blocks)]
struct BlockRow {
    number: i64,
    lines: i64,
    seal: String,
    sealed_at: i64,
    reseal: Option<String>,
}

impl BlockRow {
    /// Whether these are its records, as they were written or with the portal's own pseudonyms, after
    /// a block with the seal `before`.
    fn is_whole(&self, key: &AuditKey, before: &str, rows: &[Row]) -> bool {
        let seals = match &self.reseal {
            Some(reseal) => reseal_of(key, self, before, rows) == *reseal,
            None => seal_of(key, self.number, self.sealed_at, before, rows) == self.seal,
        };
        seals && i64::try_from(rows.len()) == Ok(self.lines)
    }
}

/// A block's number and seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedBlock {
    pub number: i64,
    pub seal: String,
}

/// The newest block, or the last one that was cut off; number 0 and the empty seal if there was
/// none.
fn newest_block(db: &mut Db<'_>) -> Result<SealedBlock, Error> {
    let newest: Option<(i64, String)> = audit_blocks::table
        .order(audit_blocks::number.desc())
        .select((audit_blocks::number, audit_blocks::seal))
        .first(db.0)
        .optional()?;
    match newest {
        Some((number, seal)) => Ok(SealedBlock { number, seal }),
        None => last_cut(db).map(Option::unwrap_or_default),
    }
}

/// The name in `meta` of the last block that was cut off.
const CUT: &str = "audit_cut";

/// The last block that was cut off: the rest of the log is verified from there on. `None` if the log
/// was never cut. [`Error::Other`] if somebody without the key wrote it.
fn last_cut(db: &mut Db<'_>) -> Result<Option<SealedBlock>, Error> {
    let Some(text) = Store::meta(db, CUT)? else {
        return Ok(None);
    };
    let damaged = || damaged_row("cut of the audit log");
    let mut parts = text.splitn(3, ' ');
    let mut next = || parts.next().ok_or_else(damaged);
    let (number, seal, proof) = (next()?, next()?, next()?);
    let cut = SealedBlock {
        number: number.parse().map_err(|_| damaged())?,
        seal: seal.to_owned(),
    };
    if proof_of_cut(key(db)?, &cut) != proof {
        return Err(damaged());
    }
    Ok(Some(cut))
}

fn proof_of_cut(key: &AuditKey, cut: &SealedBlock) -> String {
    let mut proof = key.cut();
    proof.add(&cut.number.to_string());
    proof.add(&cut.seal);
    proof.seal()
}

/// Deletes the oldest block with its records, if it was sealed before `before`; returns the number
/// of records, `None` if there is no such block. Refuses if the block is not as it was sealed.
pub fn cut(db: &mut Db<'_>, before: Timestamp) -> Result<Option<usize>, Error> {
    let oldest: Option<BlockRow> = audit_blocks::table
        .order(audit_blocks::number)
        .select(BlockRow::as_select())
        .first(db.0)
        .optional()?;
    let Some(block) = oldest.filter(|block| block.sealed_at < before.0) else {
        return Ok(None);
    };
    let number = block.number;
    let (last, rows) = (last_cut(db)?.unwrap_or_default(), rows_of(db, number)?);
    if !block.is_whole(key(db)?, &last.seal, &rows) {
        return Err(damaged_row("oldest block of the audit log; it is kept"));
    }
    let seal = block.seal;
    let cut = SealedBlock { number, seal };
    let proof = proof_of_cut(key(db)?, &cut);
    Store::write_meta(db, CUT, &format!("{number} {} {proof}", cut.seal))?;
    let deleted = diesel::delete(audit::table.filter(audit::block.eq(number))).execute(db.0)?;
    diesel::delete(audit_blocks::table.find(number)).execute(db.0)?;
    Ok(Some(deleted))
}

/// The records of a block, in order.
fn rows_of(db: &mut Db<'_>, block: i64) -> Result<Vec<Row>, Error> {
    Ok(audit::table
        .filter(audit::block.eq(block))
        .order(audit::number)
        .select(Row::as_select())
        .load(db.0)?)
}

/// Whether there are records that no block seals.
pub fn has_unsealed(db: &mut Db<'_>) -> Result<bool, Error> {
    let open = audit::table.filter(audit::block.is_null());
    Ok(diesel::select(diesel::dsl::exists(open)).get_result(db.0)?)
}

/// Seals the records that are not sealed yet in a new block; returns that block, or `None` if there
/// is nothing to seal. Records that this portal did not write are set apart. `known` is the block
/// that this process sealed last: [`Error::Other`] if it is gone or was changed. If two processes
/// try at once, one fails with [`Error::Taken`] or [`Error::Conflict`].
pub fn seal_block(
    db: &mut Db<'_>,
    known: Option<&SealedBlock>,
    now: Timestamp,
) -> Result<Option<SealedBlock>, Error> {
    let newest = newest_block(db)?;
    if let Some(known) = known
        && !holds_block(db, known, &newest)?
    {
        return Err(Error::Other(
            "the newest blocks of the audit log were changed or removed: nothing more is sealed"
                .into(),
        ));
    }
    let open: Vec<Row> = audit::table
        .filter(audit::block.is_null())
        .order(audit::number)
        .limit(MAX_BLOCK)
        .select(Row::as_select())
        .load(db.0)?;
    let key = key(db)?;
    let (rows, foreign): (Vec<Row>, Vec<Row>) = open
        .into_iter()
        .partition(|row| row.expected_proof(key) == row.proof);
    for row in foreign {
        tracing::error!(
            number = row.number,
            "the audit log holds a record that this portal did not write"
        );
        diesel::update(audit::table.find(row.number))
            .set(audit::block.eq(FOREIGN))
            .execute(db.0)?;
    }
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(None);
    };
    let number = newest.number + 1;
    let seal = seal_of(key, number, now.0, &newest.seal, &rows);
    diesel::insert_into(audit_blocks::table)
        .values((
            audit_blocks::number.eq(number),
            audit_blocks::lines.eq(i64::try_from(rows.len()).unwrap_or(MAX_BLOCK)),
            audit_blocks::seal.eq(&seal),
            audit_blocks::sealed_at.eq(now.0),
        ))
        .execute(db.0)?;
    let open = audit::table
        .filter(audit::block.is_null())
        .filter(audit::number.between(first.number, last.number));
    let sealed = diesel::update(open)
        .set(audit::block.eq(number))
        .execute(db.0)?;
    if sealed != rows.len() {
        // A record with a number in between became visible meanwhile: try again.
        return Err(Error::Conflict);
    }
    Ok(Some(SealedBlock { number, seal }))
}

/// Whether the log still holds this block, or was cut after it.
fn holds_block(db: &mut Db<'_>, known: &SealedBlock, newest: &SealedBlock) -> Result<bool, Error> {
    if newest == known {
        return Ok(true);
    }
    let seal: Option<String> = audit_blocks::table
        .find(known.number)
        .select(audit_blocks::seal)
        .first(db.0)
        .optional()?;
    match seal {
        Some(seal) => Ok(seal == known.seal),
        None => Ok(last_cut(db)?.is_some_and(|cut| cut.number >= known.number)),
    }
}

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealStatus {
    /// All sealed records are as they were written.
    Intact {
        sealed: i64,
        /// Records of the last second, which no block covers yet.
        unsealed: i64,
    },
    /// The first block that is not what was sealed, and the numbers of its first and last record;
    /// 0 if it has none.
    Broken { block: i64, first: i64, last: i64 },
}

/// Recomputes all seals. Run it on one snapshot ([`super::Store::read_snapshot`]).
pub fn verify(db: &mut Db<'_>) -> Result<SealStatus, Error> {
    let key = key(db)?;
    let mut last = last_cut(db)?.unwrap_or_default();
    let mut sealed = 0;
    loop {
        let blocks: Vec<BlockRow> = audit_blocks::table
            .filter(audit_blocks::number.gt(last.number))
            .order(audit_blocks::number)
            .limit(200)
            .select(BlockRow::as_select())
            .load(db.0)?;
        if blocks.is_empty() {
            break;
        }
        for block in blocks {
            let rows = rows_of(db, block.number)?;
            let follows = block.number == last.number + 1;
            if !follows || !block.is_whole(key, &last.seal, &rows) {
                return Ok(SealStatus::Broken {
                    block: last.number + 1,
                    first: rows.first().map_or(0, |row| row.number),
                    last: rows.last().map_or(0, |row| row.number),
                });
            }
            sealed += block.lines;
            last = SealedBlock {
                number: block.number,
                seal: block.seal,
            };
        }
    }
    // A record that names a block without a row: the newest blocks were cut off.
    let beyond: Option<i64> = audit::table
        .filter(audit::block.gt(last.number))
        .select(diesel::dsl::min(audit::number))
        .first(db.0)?;
    let open: Vec<Row> = audit::table
        .filter(audit::block.is_null().or(audit::block.eq(FOREIGN)))
        .order(audit::number)
        .select(Row::as_select())
        .load(db.0)?;
    let foreign = open
        .iter()
        .find(|row| row.block == Some(FOREIGN) || row.expected_proof(key) != row.proof)
        .map(|row| row.number);
    if let Some(first) = beyond.or(foreign) {
        return Ok(SealStatus::Broken {
            block: last.number + 1,
            first,
            last: first,
        });
    }
    Ok(SealStatus::Intact {
        sealed,
        unsealed: i64::try_from(open.len()).unwrap_or(i64::MAX),
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = audit)]
struct Row {
    number: i64,
    at: i64,
    action: String,
    actor: Option<String>,
    actor_name: String,
    subject: String,
    detail: String,
    address: String,
    correlation: String,
    outcome: String,
    proof: String,
    block: Option<i64>,
}

impl Row {
    /// Adds the fields of the event. Not the number: the database assigns it after the proof is
    /// made.
    fn add_to(&self, seal: &mut Sealing) {
        for field in [
            &self.at.to_string(),
            &self.action,
            self.actor.as_deref().unwrap_or(""),
            &self.actor_name,
            &self.subject,
            &self.detail,
            &self.address,
            &self.correlation,
            &self.outcome,
        ] {
            seal.add(field);
        }
    }

    /// The column `proof` of a record that this portal wrote.
    fn expected_proof(&self, key: &AuditKey) -> String {
        let mut proof = key.line();
        self.add_to(&mut proof);
        proof.seal()
    }
}

impl Row {
    fn event(self) -> Result<Event, Error> {
        Ok(Event {
            number: self.number,
            at: Timestamp(self.at),
            action: Action::parse(&self.action).ok_or_else(|| damaged_row("action"))?,
            actor: self.actor.as_deref().map(id).transpose()?,
            actor_name: self.actor_name,
            subject: self.subject,
            detail: self.detail,
            address: self.address,
            correlation: self.correlation,
            outcome: Outcome::parse(&self.outcome).ok_or_else(|| damaged_row("outcome"))?,
            block: self.block,
        })
    }
}

/// The names of a deleted person, and what stands for them.
///
/// The user name is replaced only in records about people, and behind the words that put a person behind
/// something in others (`of ann`): it may also be the name of an item, or a word. The display name, which
/// everybody chooses freely, stands in no record.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Pseudonym {
    person: Id<Person>,
    username: String,
    email: String,
    display_name: String,
}

/// The shortest name that is looked for within a text; a shorter one must be all of it.
const SHORTEST_NAME: usize = 3;

/// Actions whose subject is a person.
const ABOUT_PEOPLE: [&str; 7] = [
    "sign_in",
    "sign_out",
    "person_",
    "password_",
    "sessions_",
    "identity_",
    "one_time_link",
];
/// Actions whose detail names people.
const NAMING_PEOPLE: [&str; 2] = ["group_", "content_access_"];

fn is_one_of(action: &str, begins: &[&str]) -> bool {
    begins.iter().any(|begin| action.starts_with(begin))
}

impl Pseudonym {
    pub fn new(person: &Person) -> Self {
        Self {
            person: person.id,
            username: person.username.clone(),
            email: person.email.clone(),
            display_name: person.display_name(),
        }
    }

    /// Such as `deleted-1b2c3d4e`: the beginning of the person's GUID.
    pub fn text(&self) -> String {
        let guid = self.person.to_string();
        format!("deleted-{}", guid.split('-').next().unwrap_or(&guid))
    }

    /// The text of a notice about a request, with the pseudonym in place of the display name.
    pub fn in_notice(&self, text: &str) -> String {
        self.replaced(text, &self.display_name, "")
    }

    /// The text of a record with the pseudonym in place of the names.
    fn in_text(&self, text: &str, is_about_people: bool) -> String {
        if is_about_people && (text == self.username || text == self.email) {
            return self.text();
        }
        let text = self.replaced(text, &self.email, "");
        let before = if is_about_people { "" } else { "of " };
        self.replaced(&text, &self.username, before)
    }

    /// The text with the pseudonym in place of a name that stands as a whole word behind `before`.
    fn replaced(&self, text: &str, name: &str, before: &str) -> String {
        if name.chars().count() < SHORTEST_NAME {
            return text.to_owned();
        }
        let is_part = |letter: char| letter.is_alphanumeric() || "._-@+".contains(letter);
        let mut kept = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(name) {
            let (head, tail) = (&rest[..at], &rest[at + name.len()..]);
            let starts = head.ends_with(before) && !head.chars().next_back().is_some_and(is_part);
            // A full stop ends a sentence, unless the word goes on behind it.
            let mut behind = tail.chars();
            let next = behind.next();
            let ends = !next.is_some_and(is_part)
                || (next == Some('.') && !behind.next().is_some_and(is_part));
            kept.push_str(head);
            if starts && ends {
                kept.push_str(&self.text());
            } else {
                kept.push_str(name);
            }
            rest = tail;
        }
        kept.push_str(rest);
        kept
    }

    /// The record with the pseudonym; `None` if it names nobody of that name. Where the person acted,
    /// the address goes, too.
    fn of(&self, row: &Row) -> Option<Row> {
        let acted = row.actor.as_deref() == Some(self.person.to_string().as_str());
        let changed = Row {
            actor_name: if acted {
                self.text()
            } else {
                row.actor_name.clone()
            },
            address: if acted {
                String::new()
            } else {
                row.address.clone()
            },
            subject: self.in_text(&row.subject, is_one_of(&row.action, &ABOUT_PEOPLE)),
            detail: self.in_text(
                &row.detail,
                is_one_of(&row.action, &ABOUT_PEOPLE) || is_one_of(&row.action, &NAMING_PEOPLE),
            ),
            ..row.clone()
        };
        (changed != *row).then_some(changed)
    }
}

/// Where a person is named: the blocks after record `after`, and the number of the last record that was
/// looked at; `None` at the end of the log. Reads at most `most` records.
pub fn blocks_naming(
    db: &mut Db<'_>,
    whom: &Pseudonym,
    after: i64,
    most: i64,
) -> Result<Option<(Vec<i64>, i64)>, Error> {
    let rows: Vec<Row> = audit::table
        .filter(audit::number.gt(after))
        .order(audit::number)
        .limit(most)
        .select(Row::as_select())
        .load(db.0)?;
    let Some(last) = rows.last().map(|row| row.number) else {
        return Ok(None);
    };
    let mut blocks: Vec<i64> = rows
        .iter()
        .filter(|row| whom.of(row).is_some())
        .filter_map(|row| row.block)
        .filter(|block| *block != FOREIGN)
        .collect();
    blocks.dedup();
    Ok(Some((blocks, last)))
}

/// Replaces a person's names in the records of one block, or in those that no block seals yet; returns
/// in how many. Refuses if the block is not as it was sealed.
pub fn pseudonymise(db: &mut Db<'_>, whom: &Pseudonym, block: Option<i64>) -> Result<usize, Error> {
    let rows = match block {
        Some(number) => rows_of(db, number)?,
        None => audit::table
            .filter(audit::block.is_null())
            .order(audit::number)
            .select(Row::as_select())
            .load(db.0)?,
    };
    let sealed = match block {
        Some(number) => {
            let found: BlockRow = audit_blocks::table
                .find(number)
                .select(BlockRow::as_select())
                .first(db.0)?;
            let before = match audit_blocks::table
                .find(number - 1)
                .select(audit_blocks::seal)
                .first(db.0)
                .optional()?
            {
                Some(seal) => seal,
                None => last_cut(db)?.unwrap_or_default().seal,
            };
            if !found.is_whole(key(db)?, &before, &rows) {
                return Err(damaged_row("block of the audit log; its names stay"));
            }
            Some((found, before))
        }
        None => None,
    };
    let mut changed = 0;
    let mut after = Vec::with_capacity(rows.len());
    for row in rows {
        // Of the records without a block, those that this portal wrote.
        let is_ours = row.expected_proof(key(db)?) == row.proof;
        match whom.of(&row).filter(|_| is_ours) {
            Some(mut new) => {
                new.proof = new.expected_proof(key(db)?);
                diesel::update(audit::table.find(new.number))
                    .set((
                        audit::actor_name.eq(&new.actor_name),
                        audit::subject.eq(&new.subject),
                        audit::detail.eq(&new.detail),
                        audit::address.eq(&new.address),
                        audit::proof.eq(&new.proof),
                    ))
                    .execute(db.0)?;
                changed += 1;
                after.push(new);
            }
            None => after.push(row),
        }
    }
    if let Some((found, before)) = sealed
        && changed > 0
    {
        let reseal = reseal_of(key(db)?, &found, &before, &after);
        diesel::update(audit_blocks::table.find(found.number))
            .set(audit_blocks::reseal.eq(reseal))
            .execute(db.0)?;
    }
    Ok(changed)
}

/// Notes that a deleted person's names are to be taken out of the log, and kept out until `until`.
pub fn put_erasure(db: &mut Db<'_>, whom: &Pseudonym, until: Timestamp) -> Result<(), Error> {
    let names = serde_json::to_string(whom).map_err(|error| Error::Other(error.to_string()))?;
    diesel::insert_into(erasures::table)
        .values((
            erasures::person.eq(whom.person.to_string()),
            erasures::names.eq(names),
            erasures::until.eq(until.0),
        ))
        .execute(db.0)?;
    Ok(())
}

/// The deleted people whose names are to be taken out, each with the end of that.
pub fn erasures(db: &mut Db<'_>) -> Result<Vec<(Pseudonym, Timestamp)>, Error> {
    let all: Vec<(String, i64)> = erasures::table
        .select((erasures::names, erasures::until))
        .load(db.0)?;
    all.iter()
        .map(|(names, until)| {
            let whom = serde_json::from_str(names).map_err(|_| damaged_row("erasure"))?;
            Ok((whom, Timestamp(*until)))
        })
        .collect()
}

/// A deleted person's names are out of the log: they are forgotten here, too.
pub fn end_erasure(db: &mut Db<'_>, whom: &Pseudonym) -> Result<(), Error> {
    diesel::delete(erasures::table.find(whom.person.to_string())).execute(db.0)?;
    Ok(())
}

/// Which audit records to list.
#[derive(Clone, Debug, Default)]
pub struct RecordFilter {
    pub action: Option<Action>,
    pub actor: Option<Id<Person>>,
    pub outcome: Option<Outcome>,
    /// Substring of the actor's name, the subject, the detail or the correlation, without regard to
    /// case.
    pub text: Option<String>,
    /// Only records with a smaller number.
    pub before: Option<i64>,
    /// Only records with a greater number.
    pub after: Option<i64>,
    pub oldest_first: bool,
}

/// The records that match, newest first unless `oldest_first` is set.
pub fn list(db: &mut Db<'_>, filter: &RecordFilter, limit: i64) -> Result<Vec<Event>, Error> {
    let mut query = audit::table.limit(limit).into_boxed();
    query = if filter.oldest_first {
        query.order(audit::number.asc())
    } else {
        query.order(audit::number.desc())
    };
    if let Some(after) = filter.after {
        query = query.filter(audit::number.gt(after));
    }
    if let Some(action) = filter.action {
        query = query.filter(audit::action.eq(action.as_str()));
    }
    if let Some(actor) = filter.actor {
        query = query.filter(audit::actor.eq(actor.to_string()));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(audit::outcome.eq(outcome.as_str()));
    }
    if let Some(before) = filter.before {
        query = query.filter(audit::number.lt(before));
    }
    if let Some(text) = filter
        .text
        .as_deref()
        .filter(|text| !text.is_empty() && !text.contains('\0'))
    {
        let text = text
            .to_lowercase()
            .replace('\\', "\\\\")
            .replace('%', "\\%")
            .replace('_', "\\_");
        let pattern = format!("%{text}%");
        query = query.filter(
            lower(audit::actor_name)
                .like(pattern.clone())
                .escape('\\')
                .or(lower(audit::subject).like(pattern.clone()).escape('\\'))
                .or(lower(audit::detail).like(pattern.clone()).escape('\\'))
                .or(lower(audit::correlation).like(pattern).escape('\\')),
        );
    }
    let rows = query.select(Row::as_select()).load(db.0)?;
    rows.into_iter().map(Row::event).collect()
}

/// Exchanges of one viewer, content item and integration within one hour.
pub struct ExchangeCount {
    /// The start of the hour.
    pub hour: Timestamp,
    pub person: String,
    pub content: String,
    pub integration: String,
    pub exchanges: i64,
    pub last_at: Timestamp,
}

/// Which counts to list.
#[derive(Clone, Debug, Default)]
pub struct ExchangeFilter {
    pub person: Option<Id<Person>>,
    pub content: Option<Id<Content>>,
    /// Only hours that start at this time or later, and before that one.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Only hours whose last exchange was before this time: the place in a list.
    pub before: Option<Timestamp>,
}

/// The counts that a filter means, whatever its place in the list.
macro_rules! filtered_hours {
    ($query:expr, $wanted:expr) => {{
        let (mut query, wanted) = ($query, $wanted);
        if let Some(since) = wanted.since {
            query = query.filter(exchange_hours::hour.ge(since.0));
        }
        if let Some(until) = wanted.until {
            query = query.filter(exchange_hours::hour.lt(until.0));
        }
        if let Some(person) = wanted.person {
            query = query.filter(exchange_hours::person.eq(person.to_string()));
        }
        if let Some(content) = wanted.content {
            query = query.filter(exchange_hours::content.eq(content.to_string()));
        }
        query
    }};
}

/// What all the counts of a filter amount to.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExchangeTotals {
    pub exchanges: i64,
    pub people: i64,
    pub contents: i64,
}

/// The totals of the counts that `wanted` means; its place is ignored.
pub fn exchange_totals(db: &mut Db<'_>, wanted: &ExchangeFilter) -> Result<ExchangeTotals, Error> {
    use diesel::dsl::{count, sql};
    let all = || exchange_hours::table.into_boxed();
    let exchanges = filtered_hours!(all(), wanted)
        .select(sql::<diesel::sql_types::BigInt>(
            "CAST(COALESCE(SUM(exchanges), 0) AS BIGINT)",
        ))
        .first(db.0)?;
    let people = filtered_hours!(all(), wanted)
        .select(count(exchange_hours::person).aggregate_distinct())
        .first(db.0)?;
    let contents = filtered_hours!(all(), wanted)
        .select(count(exchange_hours::content).aggregate_distinct())
        .first(db.0)?;
    Ok(ExchangeTotals {
        exchanges,
        people,
        contents,
    })
}

/// The counts, last exchange first.
pub fn exchanges(
    db: &mut Db<'_>,
    wanted: &ExchangeFilter,
    limit: i64,
) -> Result<Vec<ExchangeCount>, Error> {
    let mut query = exchange_hours::table
        .order((exchange_hours::last_at.desc(), exchange_hours::hour.desc()))
        .limit(limit)
        .into_boxed();
    if let Some(before) = wanted.before {
        query = query.filter(exchange_hours::last_at.lt(before.0));
    }
    let query = filtered_hours!(query, wanted);
    let rows: Vec<(i64, String, String, String, i64, i64)> = query.load(db.0)?;
    Ok(rows
        .into_iter()
        .map(
            |(hour, person, content, integration, exchanges, last_at)| ExchangeCount {
                hour: Timestamp(hour),
                person,
                content,
                integration,
                exchanges,
                last_at: Timestamp(last_at),
            },
        )
        .collect())
}

/// The exchanges of one viewer with one item and integration by hour, since `since`.
pub fn uses_of(
    db: &mut Db<'_>,
    person: Id<Person>,
    item: Id<Content>,
    integration: Id<Integration>,
    since: Timestamp,
) -> Result<Vec<(Timestamp, i64)>, Error> {
    let rows: Vec<(i64, i64)> = exchange_hours::table
        .filter(exchange_hours::person.eq(person.to_string()))
        .filter(exchange_hours::last_at.ge(since.0))
        .filter(exchange_hours::content.eq(item.to_string()))
        .filter(exchange_hours::integration.eq(integration.to_string()))
        .filter(exchange_hours::hour.ge(since.0))
        .order(exchange_hours::hour)
        .select((exchange_hours::hour, exchange_hours::exchanges))
        .load(db.0)?;
    Ok(rows
        .into_iter()
        .map(|(hour, times)| (Timestamp(hour), times))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_whole_words_only() {
        let mut person = Person::new(Timestamp(0));
        (person.username, person.email) = ("ann".into(), "ann@example.org".into());
        let whom = Pseudonym::new(&person);
        let short = whom.text();
        let about = |text: &str| whom.in_text(text, true);
        let other = |text: &str| whom.in_text(text, false);
        assert_eq!(
            about("user name ann to ann.b; ann."),
            format!("user name {short} to ann.b; {short}.")
        );
        assert_eq!(other("token of ann used"), format!("token of {short} used"));
        assert_eq!(other("role of ann@example.org"), format!("role of {short}"));
        // An item of the same name is none of hers.
        assert_eq!(other("ann"), "ann");
        assert_eq!(
            other("the report ann was opened"),
            "the report ann was opened"
        );
        for word in [
            "annual",
            "joann",
            "ann.smith",
            "ann-marie",
            "Ann",
            "ann@other.org",
        ] {
            assert_eq!(about(word), word);
        }
        person.username = "al".into();
        person.email = String::new();
        let whom = Pseudonym::new(&person);
        assert_eq!(whom.in_text("al fine", true), "al fine");
        assert_eq!(whom.in_text("al", true), short);
    }
}
