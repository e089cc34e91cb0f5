//! The two signals the binary handles. SIGBUS: a mapped model file shrank, which no `Result` can catch. SIGINT: the
//! first asks for a clean end, the second ends at once. The only unsafe code outside the kernels and the memory map.

#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::failure::{Exit, Failure, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What the SIGBUS handler writes: a message formatted before anything can go wrong, never freed.
static MESSAGE: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Whether the user has pressed Ctrl-C.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once the user has pressed Ctrl-C.
pub(crate) fn check() -> Result<()> {
    if interrupted() { Err(Failure::new(Exit::Interrupted, "interrupted")) } else { Ok(()) }
}

/// From now on the first Ctrl-C only sets [`interrupted`] (and ends a wait for input); a second one exits with 130.
pub(crate) fn watch_interrupt() {
    extern "C" fn on_interrupt(_signal: libc::c_int) {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            // SAFETY: `_exit` is async-signal-safe and does not return.
            unsafe { libc::_exit(Exit::Interrupted as i32) }
        }
    }
    install(libc::SIGINT, on_interrupt);
}

/// Ends the process with exit code 3 and a message naming `files` when a page of a mapped file can't be read.
pub(crate) fn guard_mapped(files: &[PathBuf]) {
    extern "C" fn on_bus_error(_signal: libc::c_int) {
        let message = MESSAGE.load(Ordering::Acquire);
        // SAFETY: the pointer is null or comes from `Box::leak` below, so that it stays valid; the string is never
        // written again. `write` and `_exit` are async-signal-safe, and nothing here allocates or locks.
        unsafe {
            if let Some(message) = message.as_ref() {
                libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            }
            libc::_exit(Exit::BadFile as i32)
        }
    }
    if files.is_empty() {
        return;
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string().escape_debug().to_string()).collect();
    let message = format!(
        "error: the mapped weights can no longer be read: a file was truncated, or its disk failed, while in use ({})\n\
         help: --no-mmap reads the weights into memory first\n",
        names.join(", ")
    );
    // A few hundred bytes per opened model, kept for good: the handler may read an older one at any moment.
    MESSAGE.store(Box::leak(Box::new(message)), Ordering::Release);
    install(libc::SIGBUS, on_bus_error);
}

fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: `sigaction` is plain data for which all zeroes is a valid value (no flags, empty mask); the handler has
    // the signature that a `sa_sigaction` without SA_SIGINFO is called with, and does only async-signal-safe things.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(status, 0, "signal {signal} can't be handled");
}
