//! Limits of the processes of deployed content.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits of an item's processes. `None` means the default of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// Processes that are kept running without viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_processes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes: Option<u32>,
    /// Open requests and WebSockets that one process gets at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_conns_per_process: Option<u32>,
    /// How full processes get before another one starts, in hundredths: 0 starts early, 100 late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_factor: Option<u32>,
    /// Seconds without a connection after which a process is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u32>,
    /// Seconds within which a process must listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<u32>,
    /// Memory of one process in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}

impl Running {
    /// Upper bound of [`Running::max_processes`].
    pub const MAX_PROCESSES: u32 = 32;
    const DEFAULT_MAX_PROCESSES: u32 = 3;
    const DEFAULT_CONNECTIONS: u32 = 20;
    const DEFAULT_LOAD_FACTOR: u32 = 50;
    const DEFAULT_IDLE_SECONDS: u32 = 300;
    const DEFAULT_START_SECONDS: u32 = 60;

    pub fn min_processes(&self) -> usize {
        self.min_processes.unwrap_or(0).min(Self::MAX_PROCESSES) as usize
    }
    /// At least 1 and at least [`Self::min_processes`].
    pub fn max_processes(&self) -> usize {
        let most = self.max_processes.unwrap_or(Self::DEFAULT_MAX_PROCESSES);
        (most.clamp(1, Self::MAX_PROCESSES) as usize).max(self.min_processes())
    }
    /// At least 1.
    pub fn connections_per_process(&self) -> usize {
        self.max_conns_per_process
            .unwrap_or(Self::DEFAULT_CONNECTIONS)
            .max(1) as usize
    }
    /// How many connections a process has before another one is started: at least 1.
    pub fn connections_before_another(&self) -> usize {
        let factor = self
            .load_factor
            .unwrap_or(Self::DEFAULT_LOAD_FACTOR)
            .min(100) as usize;
        (self.connections_per_process() * factor / 100).max(1)
    }
    pub fn idle(&self) -> Duration {
        Duration::from_secs(
            self.idle_timeout
                .unwrap_or(Self::DEFAULT_IDLE_SECONDS)
                .into(),
        )
    }
    pub fn start(&self) -> Duration {
        Duration::from_secs(
            self.start_timeout
                .unwrap_or(Self::DEFAULT_START_SECONDS)
                .max(1)
                .into(),
        )
    }
}
