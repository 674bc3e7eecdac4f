//! What the bridge keeps in `state_dir`.

pub mod history;
