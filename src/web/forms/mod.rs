//! Typed text on its way to domain values, and back onto the page with what is wrong. Secrets never
//! come back.

use crate::providers::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Write-only: the page never shows what was typed.
    Secret,
    Textarea,
    Select,
    Radio,
    Date,
    Email,
    Hidden,
}

#[derive(Clone, Debug)]
pub struct Choice {
    pub value: String,
    pub label: String,
    pub hint: String,
}

impl Choice {
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

/// One field of a form as its template draws it.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub label: String,
    pub hint: String,
    pub value: String,
    pub error: Option<String>,
    pub kind: Kind,
    pub mono: bool,
    pub autocomplete: &'static str,
    pub options: Vec<Choice>,
}

impl Field {
    pub fn new(kind: Kind, name: &str, label: &str) -> Self {
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
    pub fn text(name: &str, label: &str) -> Self {
        Self::new(Kind::Text, name, label)
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }
    pub fn mono(mut self) -> Self {
        self.mono = true;
        self
    }
    pub fn autocomplete(mut self, word: &'static str) -> Self {
        self.autocomplete = word;
        self
    }
    pub fn options(mut self, options: Vec<Choice>) -> Self {
        self.options = options;
        self
    }
    pub fn is_radio(&self) -> bool {
        self.kind == Kind::Radio
    }
    pub fn is_textarea(&self) -> bool {
        self.kind == Kind::Textarea
    }
    pub fn is_select(&self) -> bool {
        self.kind == Kind::Select
    }
    pub fn is_hidden(&self) -> bool {
        self.kind == Kind::Hidden
    }
    pub fn input_type(&self) -> &'static str {
        match self.kind {
            Kind::Secret => "password",
            Kind::Date => "date",
            Kind::Email => "email",
            _ => "text",
        }
    }
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

/// Puts what was typed and what is wrong with it back into the fields. Values of secrets stay out.
pub fn refill(fields: &mut [Field], typed: Option<&Typed>, problems: &[Problem]) {
    for field in fields {
        if let Some(value) = typed
            .and_then(|typed| typed.get(&field.name))
            .filter(|_| field.kind != Kind::Secret)
        {
            field.value = value.to_owned();
        }
        field.error = problems
            .iter()
            .find(|problem| problem.key == field.name)
            .map(|problem| problem.message.clone());
    }
}

/// What was typed, in order.
#[derive(Clone, Default)]
pub struct Typed(pub Vec<(String, String)>);

impl std::fmt::Debug for Typed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Typed")
    }
}

impl Typed {
    pub fn parse(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
    /// The trimmed value, or the empty string.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("").trim()
    }
    /// `None` for a field left empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }
    /// A pasted secret: trimmed, `None` if empty.
    pub fn secret(&self, name: &str) -> Option<secrecy::SecretString> {
        self.filled(name).map(secrecy::SecretString::from)
    }
    /// A password: exactly as typed.
    pub fn password(&self, name: &str) -> secrecy::SecretString {
        secrecy::SecretString::from(self.get(name).unwrap_or(""))
    }
}
