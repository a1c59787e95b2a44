//! Long lists: search, filters, sorting and paging, with all of it in the address of the page.
//!
//! A list here is read whole and cut to a page in memory: even a company has a few thousand people,
//! items and integrations, which takes less time than drawing fifty rows. In return every list
//! searches and sorts by what it shows (accents and case do not matter, “10” comes after “2”), and
//! none needs a query of its own for each order. Pages follow one another by the last row shown, not
//! by a number: rows that come or go meanwhile neither repeat nor skip others.

use crate::{
    domain::addresses::query,
    web::{
        forms::{Choice, Field, FieldKind},
        view::grouped,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, BTreeSet};
use unicode_normalization::UnicodeNormalization as _;

/// Rows of one page.
pub const PAGE_ROWS: usize = 50;
/// Longest search text, in characters.
const MAX_FIND: usize = 100;

/// Text without case and accents, for comparing; “ß” is “ss”, which Unicode does not take apart.
pub fn fold(text: &str) -> String {
    text.nfkd()
        .filter(|letter| !unicode_normalization::char::is_combining_mark(*letter))
        .flat_map(char::to_lowercase)
        .collect::<String>()
        .replace('ß', "ss")
}

/// A text by which numbers in names sort by their value: digits are filled up with zeros.
pub fn natural_key(text: &str) -> String {
    const WIDTH: usize = 12;
    let (mut key, mut digits) = (String::new(), String::new());
    for letter in fold(text).chars().chain(['\0']) {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        if !digits.is_empty() {
            let number = digits.trim_start_matches('0');
            key.push_str(&"0".repeat(WIDTH.saturating_sub(number.len())));
            key.push_str(number);
            digits.clear();
        }
        if letter != '\0' {
            key.push(letter);
        }
    }
    key
}

/// A text by which numbers that are not negative sort by their value.
pub fn number_key(number: i64) -> String {
    format!("{number:019}")
}

/// What the address of a list asks for: its parameters, in order.
#[derive(Clone, Debug, Default)]
pub struct Asked(Vec<(String, String)>);

impl Asked {
    /// Reads a query string.
    pub fn parse(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// A parameter; empty if it is missing, the last one if it stands there several times.
    pub fn text(&self, name: &str) -> &str {
        let mut pairs = self.0.iter().rev();
        pairs
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    /// A parameter that may stand there several times, up to [`PAGE_ROWS`].
    pub fn all(&self, name: &str) -> Vec<(String, String)> {
        let pairs = self.0.iter().filter(|(known, _)| known == name);
        pairs.take(PAGE_ROWS).cloned().collect()
    }

    /// The search text in a parameter.
    fn find(&self, name: &str) -> String {
        self.text(name).trim().chars().take(MAX_FIND).collect()
    }

    /// The address of the list with some parameters replaced; an empty value removes one. The place
    /// in the list is kept only if it is among them.
    fn address(&self, base: &str, changes: &[(&str, &str)]) -> String {
        let asked = self.0.iter().map(|(name, value)| (&**name, &**value));
        let mut all: BTreeMap<&str, &str> = asked.collect();
        all.remove("after");
        all.extend(changes.iter().copied());
        let pairs: Vec<String> = all
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{}={}", query(name), query(value)))
            .collect();
        if pairs.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", pairs.join("&"))
        }
    }
}

/// What is searched for: words that must all occur.
pub struct Search(Vec<String>);

impl Search {
    /// The words of a text.
    pub fn new(find: &str) -> Self {
        let words = fold(find);
        Self(words.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether all words occur; accents and case do not matter.
    pub fn is_in(&self, text: &str) -> bool {
        let text = fold(text);
        self.0.iter().all(|word| text.contains(word))
    }

    /// Some characters of a text around the first word that occurs, with dots where it is cut.
    pub fn snippet(&self, text: &str, length: usize) -> String {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let folded = text.to_lowercase();
        let at = self
            .0
            .iter()
            .find_map(|word| folded.find(word))
            .unwrap_or(0);
        // Folding may change lengths: the place is about right.
        let place = folded.get(..at).map_or(0, |before| before.chars().count());
        let start = place.saturating_sub(length / 3);
        let cut: String = text.chars().skip(start).take(length).collect();
        let is_cut = start + length < text.chars().count();
        format!(
            "{}{}{}",
            if start > 0 { "…" } else { "" },
            cut.trim(),
            if is_cut { "…" } else { "" }
        )
    }
}

/// A column of a list.
pub struct ColumnSpec<T> {
    /// The name in the address.
    name: &'static str,
    label: &'static str,
    /// The text by which rows sort.
    key: fn(&T) -> String,
    is_descending: bool,
}

impl<T> ColumnSpec<T> {
    /// `name`: in the address. `key`: the text by which rows sort.
    pub const fn new(name: &'static str, label: &'static str, key: fn(&T) -> String) -> Self {
        Self {
            name,
            label,
            key,
            is_descending: false,
        }
    }

    /// The same; the first click sorts the greatest first, as for times and counts.
    pub const fn greatest_first(
        name: &'static str,
        label: &'static str,
        key: fn(&T) -> String,
    ) -> Self {
        Self {
            is_descending: true,
            ..Self::new(name, label, key)
        }
    }
}

/// A column's heading, as a template draws it.
pub struct Column {
    pub label: &'static str,
    /// Sorts by it, or turns the order.
    pub href: String,
    /// Value of `aria-sort`; empty for any other column than the current one.
    pub aria: &'static str,
}

/// Whether a row passes a filter with the value chosen.
pub type Passes<'a, T> = Box<dyn Fn(&T, &str) -> bool + 'a>;

/// A filter: a parameter of the address, and whether a row passes with a value.
pub struct Filter<'a, T> {
    pub name: &'static str,
    pub label: &'static str,
    /// Without the one for all, which stands before them.
    pub choices: Vec<Choice>,
    pub passes: Passes<'a, T>,
}

/// A choice for each different value, in order.
pub fn distinct_choices<'a>(values: impl IntoIterator<Item = &'a String>) -> Vec<Choice> {
    let different: BTreeSet<&String> = values.into_iter().collect();
    let mut different = Vec::from_iter(different);
    different.sort_by_cached_key(|value| natural_key(value));
    let choices = different.into_iter();
    choices.map(|value| Choice::new(value, value, "")).collect()
}

/// The frame of a list: search, headings, counts, pages.
pub struct ListFrame {
    /// The address without parameters.
    pub base: String,
    pub fields: Vec<Field>,
    pub columns: Vec<Column>,
    /// Parameters of the address that the form keeps: sort and order.
    pub kept: Vec<(String, String)>,
    /// “3 of 2,004 people”.
    pub count: String,
    /// Something is searched for or filtered.
    pub is_filtered: bool,
    /// Rows, whatever is searched for.
    total: usize,
    /// There is nothing at all, whatever is searched for.
    pub is_empty: bool,
    pub is_nothing_found: bool,
    /// The next page, and back to the first one.
    pub next: Option<String>,
    pub first: Option<String>,
}

/// Rows from which a list that is not a table shows its search.
const LARGE: usize = 10;

impl ListFrame {
    /// So many rows that searching them is of use.
    pub fn is_large(&self) -> bool {
        self.total > LARGE
    }
}

/// The words for a number of things: one, and several.
pub type Nouns = (&'static str, &'static str);

/// What a list is, whatever the address asks for.
pub struct ListSpec<'a, T> {
    /// The address without parameters.
    pub base: &'a str,
    pub nouns: Nouns,
    /// The first one decides the order until another is chosen.
    pub columns: &'a [ColumnSpec<T>],
    pub filters: &'a [Filter<'a, T>],
    /// The text in which a row is searched for.
    pub text: fn(&T) -> String,
    /// Differs for each row, and decides between equal keys.
    pub id: fn(&T) -> String,
}

/// Cuts a list to the page that the address asks for.
pub fn cut<T>(asked: &Asked, spec: &ListSpec<'_, T>, mut rows: Vec<T>) -> (ListFrame, Vec<T>) {
    let ListSpec {
        base,
        nouns,
        columns,
        filters,
        text,
        id,
    } = *spec;
    let (find, total) = (asked.find("find"), rows.len());
    let mut fields = vec![Field::new(FieldKind::Search, "find", "Search").value(&find)];
    let mut is_filtered = !find.is_empty();
    for filter in filters.iter().filter(|filter| !filter.choices.is_empty()) {
        let mut field = Field::new(FieldKind::Select, filter.name, filter.label);
        let wanted = asked.text(filter.name);
        if filter.choices.iter().any(|choice| choice.value == wanted) {
            is_filtered = true;
            rows.retain(|row| (filter.passes)(row, wanted));
            field = field.value(wanted);
        }
        let mut choices = vec![Choice::new("", "All", "")];
        choices.extend_from_slice(&filter.choices);
        fields.push(field.options(choices));
    }
    if !find.is_empty() {
        let search = Search::new(&find);
        rows.retain(|row| search.is_in(&text(row)));
    }
    let found = rows.len();
    let wanted = asked.text("sort");
    let by = columns.iter().find(|column| column.name == wanted);
    let by = by.or(columns.first());
    let is_descending = match asked.text("order") {
        "asc" => false,
        "desc" => true,
        _ => by.is_some_and(|column| column.is_descending),
    };
    let mut keyed: Vec<((String, String), T)> = rows
        .into_iter()
        .map(|row| {
            let key = by.map_or_else(String::new, |column| (column.key)(&row));
            ((key, id(&row)), row)
        })
        .collect();
    keyed.sort_by(|(left, _), (right, _)| left.cmp(right));
    if is_descending {
        keyed.reverse();
    }
    let after = place_from_text(asked.text("after"));
    if let Some(after) = &after {
        keyed.retain(|(key, _)| {
            if is_descending {
                key < after
            } else {
                key > after
            }
        });
    }
    let has_more = keyed.len() > PAGE_ROWS;
    keyed.truncate(PAGE_ROWS);
    let next = keyed
        .last()
        .filter(|_| has_more)
        .map(|(key, _)| asked.address(base, &[("after", &place_to_text(key))]));
    let headings = columns
        .iter()
        .map(|column| {
            let is_current = by.is_some_and(|by| by.name == column.name);
            let turned = if is_current {
                !is_descending
            } else {
                column.is_descending
            };
            let order = if turned == column.is_descending {
                ""
            } else if turned {
                "desc"
            } else {
                "asc"
            };
            Column {
                label: column.label,
                href: asked.address(base, &[("sort", column.name), ("order", order)]),
                aria: match (is_current, is_descending) {
                    (false, _) => "",
                    (true, false) => "ascending",
                    (true, true) => "descending",
                },
            }
        })
        .collect();
    let noun = if total == 1 { nouns.0 } else { nouns.1 };
    let frame = ListFrame {
        base: base.to_owned(),
        fields,
        columns: headings,
        kept: ["sort", "order"]
            .into_iter()
            .filter(|name| !asked.text(name).is_empty())
            .map(|name| (name.to_owned(), asked.text(name).to_owned()))
            .collect(),
        count: if is_filtered {
            format!("{} of {} {noun}", grouped(found), grouped(total))
        } else {
            format!("{} {noun}", grouped(total))
        },
        is_filtered,
        total,
        is_empty: total == 0,
        is_nothing_found: found == 0,
        next,
        first: after.map(|_| asked.address(base, &[])),
    };
    (frame, keyed.into_iter().map(|(_, row)| row).collect())
}

/// A place in a list, for the address.
fn place_to_text((key, id): &(String, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("{key}\0{id}"))
}

fn place_from_text(text: &str) -> Option<(String, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let place = String::from_utf8(bytes).ok()?;
    let (key, id) = place.split_once('\0')?;
    Some((key.to_owned(), id.to_owned()))
}

/// Choices that a picker shows at once, at most.
pub const PICKER_ROWS: usize = 20;

/// A search among many choices, whose results stand below it on the same page.
pub struct ChoiceSearch {
    /// The address of the page, and the anchor of the section. What is searched for is its parameter
    /// `find-…` with the anchor.
    pub action: String,
    pub anchor: &'static str,
    /// What is searched, for `web/pages/choices.rs`.
    pub what: &'static str,
    /// The same in words: “Search people and groups”.
    pub label: &'static str,
    /// The search text.
    pub find: String,
    /// That nothing, or more than is shown, was found.
    pub message: Option<String>,
    /// Hidden fields that the search sends along.
    pub kept: Vec<Field>,
}

impl ChoiceSearch {
    /// A search in the section `anchor` of the page at `action`.
    pub fn new(
        asked: &Asked,
        action: &str,
        anchor: &'static str,
        (what, label): (&'static str, &'static str),
    ) -> Self {
        Self {
            what,
            find: asked.find(&format!("find-{anchor}")),
            action: action.to_owned(),
            anchor,
            label,
            message: None,
            kept: Vec::new(),
        }
    }

    /// The first [`PICKER_ROWS`] that are found, in order; none while nothing is searched for.
    /// `text` is what is searched.
    pub fn run<T>(&mut self, all: Vec<T>, text: impl Fn(&T) -> String) -> Vec<T> {
        if self.find.is_empty() {
            return Vec::new();
        }
        let mut found = found(all, &self.find, text);
        self.message = match found.len() {
            0 => Some(format!("Nothing matches “{}”.", self.find)),
            1..=PICKER_ROWS => None,
            number => {
                let more = grouped(number - PICKER_ROWS);
                Some(format!("{more} more: search with more letters."))
            }
        };
        found.truncate(PICKER_ROWS);
        found
    }
}

/// Chooses one of many: a select field for a few; else a search, and its results as radio buttons.
pub struct Picker {
    /// `None`: the choices are few.
    pub search: Option<ChoiceSearch>,
    /// Without options until something is found.
    pub choices: Field,
    /// What the same form asks besides.
    pub more: Vec<Field>,
}

impl Picker {
    /// A picker with the search `search`, if it needs one. `field`: all choices, of which the first
    /// one says what to choose.
    pub fn new(mut search: ChoiceSearch, mut field: Field) -> Self {
        if field.options.len() <= PICKER_ROWS + 1 {
            return Self {
                search: None,
                choices: field,
                more: Vec::new(),
            };
        }
        let all = field.options.split_off(1);
        let found = search.run(all, choice_text);
        let legend = if found.is_empty() {
            "Chosen".to_owned()
        } else {
            format!("Found for “{}”", search.find)
        };
        let mut choices = Field::new(FieldKind::Radio, &field.name, &legend).options(found);
        choices.error = field.error;
        Self {
            search: Some(search),
            choices,
            more: Vec::new(),
        }
    }
}

/// Those of `all` in whose `text` the words of `find` occur, in its order.
fn found<T>(mut all: Vec<T>, find: &str, text: impl Fn(&T) -> String) -> Vec<T> {
    let search = Search::new(find);
    all.retain(|one| search.is_in(&text(one)));
    all.sort_by_cached_key(|one| natural_key(&text(one)));
    all
}

/// The text in which a choice is searched for, and by which it sorts.
fn choice_text(choice: &Choice) -> String {
    format!("{} {}", choice.label, choice.hint)
}

/// The first [`PICKER_ROWS`] choices in which `find` is found, in order.
pub fn found_choices(all: Vec<Choice>, find: &str) -> Vec<Choice> {
    let mut found = found(all, find, choice_text);
    found.truncate(PICKER_ROWS);
    found
}

/// What a filter by one of many means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOf {
    All,
    /// The value of a choice.
    One(String),
    /// What was typed fits none, or several: nothing is shown, and the field says so.
    Unclear,
}

/// A filter by one of many. `field`: all choices, the first one for all. A few stay a select field;
/// of many, one is named by typing its label, or enough of it.
pub fn one_of(field: Field, typed: &str) -> (Field, OneOf) {
    let typed = typed.trim();
    let exact = field.options.iter().find(|choice| choice.value == typed);
    let is_small = field.options.len() <= PICKER_ROWS + 1;
    if typed.is_empty() || (is_small && exact.is_none()) {
        return match is_small {
            true => (field, OneOf::All),
            false => (as_text(&field, ""), OneOf::All),
        };
    }
    if let Some(choice) = exact.cloned() {
        let shown = if is_small {
            field.value(choice.value.clone())
        } else {
            as_text(&field, &choice.label)
        };
        return (shown, OneOf::One(choice.value));
    }
    let search = Search::new(typed);
    let found: Vec<&Choice> = field
        .options
        .iter()
        .skip(1)
        .filter(|choice| search.is_in(&choice.label))
        .collect();
    let same = found
        .iter()
        .find(|choice| fold(&choice.label) == fold(typed));
    match (same, found.as_slice()) {
        (Some(one), _) | (None, [one]) => {
            (as_text(&field, &one.label), OneOf::One(one.value.clone()))
        }
        (None, several) => {
            let error = match several.len() {
                0 => format!("Nothing matches “{typed}”."),
                number => format!("{number} match “{typed}”: type more of the name."),
            };
            let mut shown = as_text(&field, typed);
            shown.error = Some(error);
            (shown, OneOf::Unclear)
        }
    }
}

/// A text field in place of a select field.
fn as_text(field: &Field, value: &str) -> Field {
    Field::new(FieldKind::Search, &field.name, &field.label).value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(asked: &str, names: &[&str]) -> (ListFrame, Vec<String>) {
        let columns = [ColumnSpec::new("name", "Name", |name: &String| {
            natural_key(name)
        })];
        let filter = Filter {
            name: "kind",
            label: "Kind",
            choices: vec![Choice::new("short", "Short", "")],
            passes: Box::new(|name: &String, _| name.len() < 4),
        };
        let rows = names.iter().map(|name| (*name).to_owned()).collect();
        let spec = ListSpec {
            base: "/list",
            nouns: ("thing", "things"),
            columns: &columns,
            filters: &[filter],
            text: String::clone,
            id: String::clone,
        };
        cut(&Asked::parse(asked), &spec, rows)
    }

    #[test]
    fn accents_and_case_do_not_matter_and_numbers_sort_by_value() {
        let (frame, rows) = page("find=urgen", &["Jürgen", "Anna"]);
        assert_eq!(
            (rows, frame.count.as_str()),
            (vec!["Jürgen".into()], "1 of 2 things")
        );
        let (_, rows) = page("", &["Item 10", "item 2", "Ítem 1"]);
        assert_eq!(rows, ["Ítem 1", "item 2", "Item 10"]);
        let (_, rows) = page("sort=name&order=desc", &["a", "B", "c"]);
        assert_eq!(rows, ["c", "B", "a"]);
        let (frame, rows) = page("kind=short", &["abc", "abcd"]);
        assert_eq!(rows, ["abc"]);
        assert!(frame.is_filtered);
    }

    #[test]
    fn pages_follow_one_another_whatever_changes_meanwhile() {
        let names: Vec<String> = (0..120).map(|number| format!("item {number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (frame, first) = page("", &names);
        assert_eq!((first.len(), frame.first.is_none()), (PAGE_ROWS, true));
        let next = frame.next.expect("a next page");
        let (_, asked) = next.split_once('?').expect("parameters");
        // One that was shown is gone, and a new one comes before: nothing repeats or is skipped.
        let mut later: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| *name != "item 3")
            .collect();
        later.push("item 00");
        let (frame, second) = page(asked, &later);
        assert_eq!(second.first().map(String::as_str), Some("item 50"));
        let (_, asked) = frame
            .next
            .as_deref()
            .and_then(|next| next.split_once('?'))
            .expect("a third page");
        let (frame, third) = page(asked, &later);
        assert_eq!((third.len(), frame.next.is_none()), (20, true));
        assert_eq!(frame.first.as_deref(), Some("/list"));
    }

    #[test]
    fn one_of_many_is_named_by_enough_of_its_name() {
        let field = |count: usize| {
            let options = (0..count)
                .map(|number| Choice::new(format!("id{number}"), format!("Item {number}"), ""));
            let all = std::iter::once(Choice::new("", "All", ""));
            Field::new(FieldKind::Select, "item", "Item").options(all.chain(options).collect())
        };
        assert_eq!(one_of(field(5), "id3").1, OneOf::One("id3".into()));
        assert_eq!(one_of(field(5), "nonsense").1, OneOf::All);
        assert_eq!(
            one_of(field(90), "item 7").1,
            OneOf::One("id7".into()),
            "the exact name wins"
        );
        assert_eq!(one_of(field(90), "89").1, OneOf::One("id89".into()));
        let (shown, which) = one_of(field(90), "item");
        assert_eq!(which, OneOf::Unclear);
        assert!(shown.error.is_some_and(|error| error.contains("90 match")));
    }
}
