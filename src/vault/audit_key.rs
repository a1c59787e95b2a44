//! The key that seals the audit log: whoever can write to the database, but does not hold the
//! keyring, cannot forge a block.

use super::Root;

/// Purpose of the derived key.
const PURPOSE: &str = "audit log";
/// What is sealed; a seal of one kind is none of another.
const LINE: &str = "line";
const BLOCK: &str = "block";
const CUT: &str = "cut";
const RESEAL: &str = "reseal";

/// Seals blocks of the audit log with HMAC-SHA-256 (RFC 2104).
pub struct AuditKey(ring::hmac::Key);

impl AuditKey {
    pub fn new(root: &Root) -> Self {
        let key = root.derive(PURPOSE);
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key))
    }

    /// Starts the seal of one line.
    pub fn line(&self) -> Sealing {
        self.start(LINE)
    }

    /// Starts the seal of a block.
    pub fn block(&self) -> Sealing {
        self.start(BLOCK)
    }

    /// Starts the seal of a block whose records carry a pseudonym now.
    pub fn reseal(&self) -> Sealing {
        self.start(RESEAL)
    }

    /// Starts the seal of the place where the log was cut off.
    pub fn cut(&self) -> Sealing {
        self.start(CUT)
    }

    fn start(&self, kind: &str) -> Sealing {
        let mut sealing = Sealing(ring::hmac::Context::with_key(&self.0));
        sealing.add(kind);
        sealing
    }
}

/// Something that is being sealed or checked.
pub struct Sealing(ring::hmac::Context);

impl Sealing {
    /// Adds a field. It is prefixed with its length, so that moving text between fields changes the
    /// seal.
    pub fn add(&mut self, field: &str) {
        self.0.update(format!("{}:", field.len()).as_bytes());
        self.0.update(field.as_bytes());
        self.0.update(b",");
    }

    /// The seal, in hexadecimal.
    pub fn seal(self) -> String {
        let tag = self.0.sign();
        tag.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
