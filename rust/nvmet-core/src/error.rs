//! What can go wrong for the operator: every variant is one line that says what, where and what to do.

/// An error of the operator's doing: configuration, sockets, resources.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A value of the configuration cannot be used.
    #[error("{what}: {value}; {fix}")]
    Config {
        /// Which setting.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        fix: String,
    },
    /// A backend cannot be opened or used.
    #[error(transparent)]
    Backend(#[from] nvmet_block::BackendError),
    /// The socket cannot be listened on.
    #[error("{reason}")]
    Listen {
        /// Which socket, why, and what to do.
        reason: String,
    },
    /// The file of what a namespace keeps cannot be used.
    #[error("{reason}")]
    State {
        /// Which file, why, and what to do.
        reason: String,
    },
    /// The operating system refused a resource.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The target has been shut down.
    #[error("the target has been shut down")]
    ShutDown,
    /// Something did not finish in its time.
    #[error("{what} did not finish within {seconds:.1} s")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: f64,
    },
}

impl TargetError {
    /// A [`TargetError::Config`].
    pub fn config(what: &'static str, value: impl ToString, fix: impl Into<String>) -> Self {
        Self::Config { what, value: value.to_string(), fix: fix.into() }
    }

    /// A [`TargetError::System`] from any errno-like error.
    pub fn system(what: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::System { what, source: source.into() }
    }
}
