//! Landlock: which files may be touched, and that nothing new is listened on or connected to.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::{Path, PathBuf};

use super::Paths;

/// Takes every right to files from this thread and those that it starts, but those to `paths`; and those to bind a TCP port,
/// to connect any but those of `paths`, to reach other processes' abstract sockets, and to send them signals. Gives what the kernel does not
/// know of this, in words.
///
/// # Errors
/// Why it has none of it, in words.
pub(super) fn confine(paths: &Paths) -> Result<Vec<&'static str>, String> {
    let text = |error: RulesetError| error.to_string();
    // Newer kernels know more. What is new to them is left as it is, until it has been tried.
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(text)?;
    let status = grant(ruleset, paths)
        .and_then(RulesetCreated::restrict_self)
        .map_err(text)?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err("this kernel has it switched off".to_owned()),
        (RulesetStatus::NotEnforced, _) => Err("this kernel lacks it: Linux 5.13 and later have it".to_owned()),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(lacking(effective_abi)),
        (_, _) => Ok(Vec::new()),
    }
}

fn grant(mut ruleset: RulesetCreated, paths: &Paths) -> Result<RulesetCreated, RulesetError> {
    let device = [PathBuf::from("/dev/null")];
    let grants = [
        (AccessFs::ReadFile | AccessFs::ReadDir, paths.read.iter().collect()),
        (AccessFs::WriteFile | AccessFs::MakeReg, paths.append.iter().collect()),
        (AccessFs::RemoveFile.into(), paths.remove.iter().collect()),
        (
            AccessFs::ReadFile
                | AccessFs::ReadDir
                | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::RemoveFile,
            paths.journal.iter().collect(),
        ),
        // What stands in for the standard streams of a broker in the background.
        (
            AccessFs::ReadFile | AccessFs::WriteFile,
            device.iter().collect::<Vec<_>>(),
        ),
    ];
    for (rights, paths) in grants {
        for path in paths {
            // What is not there, or may not be entered by this user, cannot be had either way.
            if let Some(rule) = rule(path, rights) {
                ruleset = ruleset.add_rule(rule)?;
            }
        }
    }
    for port in &paths.ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset)
}

fn rule(path: &Path, rights: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    let opened = PathFd::new(path).ok()?;
    let rights = if path.is_dir() {
        rights
    } else {
        rights & AccessFs::from_file(ABI::V5)
    };
    Some(PathBeneath::new(opened, rights))
}

fn lacking(abi: ABI) -> Vec<&'static str> {
    let since = [
        (ABI::V3, "cutting files short (Linux 6.2)"),
        (ABI::V4, "TCP ports (6.7)"),
        (ABI::V5, "device commands (6.10)"),
        (ABI::V6, "signals and abstract sockets (6.12)"),
    ];
    since
        .into_iter()
        .filter(|(since, _)| abi < *since)
        .map(|(_, what)| what)
        .collect()
}
