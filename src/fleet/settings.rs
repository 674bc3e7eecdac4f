//! The configuration of a gateway.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Milliseconds between two audits.
    pub audit_interval_ms: i64,
    /// Milliseconds after the last sign of life until the devices' states are unknown.
    pub unknown_after_ms: i64,
    /// Milliseconds after which a device that has left the list is forgotten; `None`: never.
    pub forget_after_ms: Option<i64>,
}
