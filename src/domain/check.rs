//! The result of a check or a test sign-in of an integration: its findings, and for each that is not
//! good the setting to blame and what to do.

use super::Timestamp;
use serde::{Deserialize, Serialize};

/// How one look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// It works, but not as it should.
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// A stable word for programs, such as `client_secret_wrong`.
    pub code: String,
    /// The finding as a sentence.
    pub text: String,
    /// What to do, where something is to be done.
    pub fix: String,
    /// The setting of the integration that is to blame, if one is.
    pub setting: Option<String>,
}

impl Finding {
    pub fn good(code: &str, text: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Good,
            code: code.to_owned(),
            text: text.into(),
            fix: String::new(),
            setting: None,
        }
    }
    pub fn bad(code: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            fix: fix.into(),
            ..Self::good(code, text)
        }
    }
    pub fn warning(code: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            ..Self::bad(code, text, fix)
        }
    }
    /// Names the setting that is to blame.
    pub fn of(self, setting: &str) -> Self {
        Self {
            setting: Some(setting.to_owned()),
            ..self
        }
    }
}

/// All that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    pub at: Timestamp,
    pub findings: Vec<Finding>,
}

impl CheckResult {
    /// The worst of the findings.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Good)
    }
    /// The first finding that is as bad as the whole.
    pub fn worst(&self) -> Option<&Finding> {
        let worst = self.verdict();
        self.findings
            .iter()
            .find(|finding| finding.verdict == worst)
    }
}
