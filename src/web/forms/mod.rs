//! Form fields and posted values: typed text on its way to domain values, and back onto the page
//! with error messages. Values of secret fields are never sent back.

use crate::domain::form::FieldError;

/// The kind of input that a template draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    Text,
    /// Write-only: a page never shows the value.
    Secret,
    Textarea,
    Select,
    Radio,
    Date,
    Email,
    Search,
    Hidden,
}

/// One option of a select or radio field.
#[derive(Clone, Debug)]
pub struct Choice {
    pub value: String,
    pub label: String,
    pub hint: String,
}

impl Choice {
    /// An option: its value, its label, and a hint (empty for none).
    pub fn new(
        value: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            value: value.into(),
            label: label.into(),
            hint: hint.into(),
        }
    }
}

/// One field of a form, as its template draws it.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub label: String,
    pub hint: String,
    pub value: String,
    pub error: Option<String>,
    pub kind: FieldKind,
    /// Draw the value in a monospaced font.
    pub mono: bool,
    /// Value of the HTML attribute `autocomplete`.
    pub autocomplete: &'static str,
    pub options: Vec<Choice>,
}

impl Field {
    /// An empty field without hint, options or autocompletion.
    pub fn new(kind: FieldKind, name: &str, label: &str) -> Self {
        Self {
            name: name.into(),
            label: label.into(),
            hint: String::new(),
            value: String::new(),
            error: None,
            kind,
            mono: false,
            autocomplete: "off",
            options: Vec::new(),
        }
    }
    /// An empty one-line text field.
    pub fn text(name: &str, label: &str) -> Self {
        Self::new(FieldKind::Text, name, label)
    }
    /// Sets the sentence below the label.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
    /// Sets the value shown.
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }
    /// Draws the value in a monospaced font.
    pub fn mono(mut self) -> Self {
        self.mono = true;
        self
    }
    /// Sets the HTML attribute `autocomplete`; the default is `off`.
    pub fn autocomplete(mut self, word: &'static str) -> Self {
        self.autocomplete = word;
        self
    }
    /// The options of a select or radio field.
    pub fn options(mut self, options: Vec<Choice>) -> Self {
        self.options = options;
        self
    }
    pub fn is_radio(&self) -> bool {
        self.kind == FieldKind::Radio
    }
    pub fn is_textarea(&self) -> bool {
        self.kind == FieldKind::Textarea
    }
    pub fn is_select(&self) -> bool {
        self.kind == FieldKind::Select
    }
    pub fn is_hidden(&self) -> bool {
        self.kind == FieldKind::Hidden
    }
    /// Value of the HTML attribute `type`.
    pub fn input_type(&self) -> &'static str {
        match self.kind {
            FieldKind::Secret => "password",
            FieldKind::Date => "date",
            FieldKind::Email => "email",
            FieldKind::Search => "search",
            _ => "text",
        }
    }
    /// Value of `aria-describedby`: the ids of hint and error; `None` without either.
    pub fn described_by(&self) -> Option<String> {
        let mut ids = Vec::new();
        if !self.hint.is_empty() {
            ids.push(format!("{}-hint", self.name));
        }
        if self.error.is_some() {
            ids.push(format!("{}-error", self.name));
        }
        (!ids.is_empty()).then(|| ids.join(" "))
    }
}

/// Puts posted values and errors back into the fields. Values of secret fields are left out. An
/// error belongs to the field whose name is its key.
pub fn refill(fields: &mut [Field], typed: Option<&FormValues>, problems: &[FieldError]) {
    for field in fields {
        if let Some(value) = typed
            .and_then(|typed| typed.get(&field.name))
            .filter(|_| field.kind != FieldKind::Secret)
        {
            field.value = value.to_owned();
        }
        field.error = problems
            .iter()
            .find(|problem| problem.key == field.name)
            .map(|problem| problem.message.clone());
    }
}

/// Posted names and values, in order. `Debug` prints no values: they may be secrets.
#[derive(Clone, Default)]
pub struct FormValues(pub Vec<(String, String)>);

impl std::fmt::Debug for FormValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Typed")
    }
}

impl FormValues {
    /// Parses `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }
    /// The first value with this name, untrimmed.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
    /// All values of a field, such as those of checked boxes.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.trim())
    }
    /// The trimmed value; empty if the field is missing.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("").trim()
    }
    /// The trimmed value; `None` if it is empty or missing.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }
    /// A pasted secret: trimmed; `None` if it is empty or missing.
    pub fn secret(&self, name: &str) -> Option<secrecy::SecretString> {
        self.non_empty(name).map(secrecy::SecretString::from)
    }
    /// A password, untrimmed; empty if the field is missing.
    pub fn password(&self, name: &str) -> secrecy::SecretString {
        secrecy::SecretString::from(self.get(name).unwrap_or(""))
    }
}
