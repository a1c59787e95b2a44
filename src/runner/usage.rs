//! What processes use: resident memory and CPU of a process and all that it started, from `/proc`.

use crate::service::running::board::ResourceUse;
use std::{collections::HashMap, fs, time::Instant};

/// One line of `/proc/{pid}/stat`.
struct Stat {
    parent: u32,
    /// Clock ticks.
    cpu: u64,
    /// Pages.
    memory: u64,
}

/// What was seen before, to know what was used since.
#[derive(Default)]
pub struct Sampler(HashMap<u32, (u64, Instant)>);

impl Sampler {
    /// What each of these processes uses, with its descendants.
    pub fn sample(&mut self, roots: &[u32]) -> HashMap<u32, ResourceUse> {
        let all = read_all();
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, stat) in &all {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let now = Instant::now();
        let page = rustix::param::page_size() as u64;
        // 100 on every Linux today.
        #[allow(clippy::cast_precision_loss)]
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f32;
        let mut found = HashMap::new();
        for root in roots {
            let (mut cpu, mut memory, mut open) = (0, 0, vec![*root]);
            while let Some(pid) = open.pop() {
                if let Some(stat) = all.get(&pid) {
                    cpu += stat.cpu;
                    memory += stat.memory * page;
                }
                open.extend(children.get(&pid).into_iter().flatten());
            }
            let before = self.0.insert(*root, (cpu, now));
            let used = before.map_or(0.0, |(before, at)| {
                let seconds = now.duration_since(at).as_secs_f32().max(0.001);
                // Well below 2^24 ticks between two samples.
                #[allow(clippy::cast_precision_loss)]
                let ticks = cpu.saturating_sub(before) as f32;
                ticks / ticks_per_second / seconds
            });
            found.insert(*root, ResourceUse { memory, cpu: used });
        }
        self.0.retain(|pid, _| roots.contains(pid));
        found
    }
}

fn read_all() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        Some((
            pid,
            parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
        ))
    })
    .collect()
}

/// The name stands in brackets and may hold anything, so fields are counted from its end.
fn parse(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
    let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        cpu: number(11)? + number(12)?,
        memory: number(21)?,
    })
}
