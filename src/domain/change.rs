//! What an update does with a value that may be absent. An absent field of a request keeps the
//! value; null, or an empty field of a form, removes it.

/// What to do with an optional value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    #[default]
    Keep,
    /// Remove the value; a setting gets its default again.
    Clear,
    Set(T),
}

impl<T> Change<T> {
    /// `Set` for a value, `Clear` for none.
    pub fn to(value: Option<T>) -> Self {
        value.map_or(Change::Clear, Change::Set)
    }

    /// The value after the change of `before`.
    pub fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Change::Keep => before,
            Change::Clear => None,
            Change::Set(value) => Some(value),
        }
    }
}
