//! `lesion doctor`: what this machine and this build offer, and what is off and why.

use std::fs;

use lesion::weights::HubOptions;
use lesion_kernels::Isa;
use serde::Serialize;

use super::args::Doctor;
use super::failure::{Exit, Result};
use super::model::shown_path;
use super::output::{Output, SCHEMA_VERSION, table};
use super::resolve;

#[derive(Serialize)]
struct DoctorRecord {
    schema_version: u32,
    version: &'static str,
    target: String,
    features: Vec<&'static str>,
    cpu: Option<String>,
    cpu_features: Vec<&'static str>,
    /// The widest first.
    isas: Vec<&'static str>,
    isa: &'static str,
    precision: &'static str,
    threads: usize,
    memory_bytes: Option<u64>,
    cache: CacheRecord,
    cuda: CudaRecord,
}

#[derive(Serialize)]
struct CacheRecord {
    path: Option<String>,
    snapshots: usize,
    offline: bool,
    problem: Option<String>,
}

#[derive(Serialize)]
struct CudaRecord {
    available: bool,
    reason: String,
}

pub(crate) fn run(args: &Doctor) -> Result<Exit> {
    let mut output = Output::open(&args.output)?;
    let engine = resolve::engine(&args.engine)?;
    let record = DoctorRecord {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        features: [("mini", cfg!(feature = "mini")), ("hub", cfg!(feature = "hub")), ("cli", true)]
            .iter()
            .filter_map(|&(name, on)| on.then_some(name))
            .collect(),
        cpu: processor(),
        cpu_features: cpu_features(),
        isas: Isa::available().map(Isa::name).collect(),
        isa: engine.isa.name(),
        precision: engine.precision.name(),
        threads: engine.threads,
        memory_bytes: memory(),
        cache: cache(),
        cuda: CudaRecord { available: false, reason: cuda() },
    };
    if output.json {
        output.object(&record)?;
    } else {
        output.text(&table(&[], &rows(&record), 2))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn rows(record: &DoctorRecord) -> Vec<Vec<String>> {
    let unknown = || "unknown".to_owned();
    let cache = match (&record.cache.path, &record.cache.problem) {
        (_, Some(problem)) => problem.clone(),
        (Some(path), None) => {
            let offline = if record.cache.offline { ", offline" } else { "" };
            format!("{path} ({} snapshots{offline})", record.cache.snapshots)
        }
        (None, None) => unknown(),
    };
    [
        ("lesion", format!("{} for {} ({})", record.version, record.target, record.features.join(", "))),
        ("processor", record.cpu.clone().unwrap_or_else(unknown)),
        ("its features", record.cpu_features.join(" ")),
        ("instruction sets", record.isas.join(", ")),
        ("kernels chosen", record.isa.to_owned()),
        ("precision", record.precision.to_owned()),
        ("threads", record.threads.to_string()),
        (
            "memory",
            record.memory_bytes.map_or_else(unknown, |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))),
        ),
        ("model cache", cache),
        ("cuda", format!("off: {}", record.cuda.reason)),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect()
}

/// Features that the kernels use, or that tell what a machine could do.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter_map(|(name, here)| here.then_some(name)).collect()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cache() -> CacheRecord {
    let options = match HubOptions::from_env() {
        Ok(options) => options,
        Err(error) => {
            return CacheRecord { path: None, snapshots: 0, offline: false, problem: Some(error.to_string()) };
        }
    };
    let (snapshots, problem) = match options.cache.snapshots() {
        Ok(snapshots) => (snapshots.len(), None),
        Err(error) => (0, Some(error.to_string())),
    };
    CacheRecord { path: Some(shown_path(options.cache.root())), snapshots, offline: options.offline, problem }
}

fn cuda() -> String {
    let driver = match fs::metadata("/proc/driver/nvidia/version") {
        Ok(_) => "an NVIDIA driver is loaded",
        Err(_) => "no NVIDIA driver is loaded either",
    };
    format!("this version of lesion has no CUDA kernels; {driver}")
}
