//! Connections between a gateway and its devices: made, refused, lost and made again.
//!
//! May not answer clients' calls (`calls`) nor decide about faults (`faults`).

use super::{
    Attempt, Gateway, Managed, Millis, Mode, Origin, Output, Phase, Refusal, Wake,
    cannot_connect_status, connected_status, not_allowed_status,
};
use crate::proto::connect::Status;
use std::net::Ipv4Addr;

/// What a gateway meets that dials an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// This device, and it speaks as wanted.
    Device(u32),
    /// Nothing answers.
    Silence,
    /// A device that does not listen: it dials by itself.
    Closed,
    /// A device that speaks TLS where plain was wanted, or the reverse.
    OtherSsl,
    /// A device that has a connection already.
    Busy(u32),
}

impl Gateway {
    /// What is at this address now.
    fn dial(&self, ip: Option<Ipv4Addr>, port: u16, ssl: bool) -> Answer {
        let id = ip.and_then(|ip| self.by_address.get(&(ip, port)));
        let Some(machine) = id.and_then(|id| self.machines.get(id)) else {
            return Answer::Silence;
        };
        let device = &machine.device;
        if !device.powered || !self.network {
            Answer::Silence
        } else if machine.linked {
            Answer::Busy(device.id)
        } else if device.mode == Mode::DeviceToServer {
            Answer::Closed
        } else if device.ssl != ssl {
            Answer::OtherSsl
        } else {
            Answer::Device(device.id)
        }
    }

    /// How long it takes to learn what is at an address.
    fn dial_time(&self, ip: Option<Ipv4Addr>, port: u16, ssl: bool) -> u64 {
        match self.dial(ip, port, ssl) {
            Answer::Silence => self.rules.timing.connect_timeout_ms,
            Answer::Device(_) | Answer::Closed | Answer::OtherSsl | Answer::Busy(_) => {
                self.rules.timing.connect_ms
            }
        }
    }

    /// Begins a synchronous connect; `Output::Connected` with the returned number ends it.
    pub(super) fn begin_attempt(&mut self, now: Millis, ip: Ipv4Addr, port: u16, ssl: bool) -> u64 {
        let attempt = self.timers.token();
        let due = now + self.dial_time(Some(ip), port, ssl);
        self.attempts.insert(attempt, Attempt { ip, port, ssl });
        self.timers.set(due, Wake::Attempt(attempt));
        attempt
    }

    pub(super) fn finish_attempt(&mut self, now: Millis, attempt: u64) {
        let Some(Attempt { ip, port, ssl }) = self.attempts.remove(&attempt) else { return };
        let refuse = |message: String| Err(Refusal::new(tonic::Code::Unavailable, message));
        let result = match self.dial(Some(ip), port, ssl) {
            Answer::Device(id) => {
                self.connect_sync(now, id, ip, port, ssl);
                Ok(id)
            }
            Answer::Silence => refuse(format!("cannot connect to {ip}:{port}: no answer")),
            Answer::Closed => refuse(format!(
                "cannot connect to {ip}:{port}: connection refused (the device may be in mode \
                 DEVICE_TO_SERVER)"
            )),
            Answer::OtherSsl if ssl => refuse(format!(
                "cannot connect to {ip}:{port}: TLS handshake failed (SSL is not enabled on the \
                 device)"
            )),
            Answer::OtherSsl => refuse(format!(
                "cannot connect to {ip}:{port}: the device closed the connection (SSL is enabled \
                 on it: set useSSL)"
            )),
            Answer::Busy(id) => Err(Refusal::new(
                tonic::Code::AlreadyExists,
                format!("device {id} at {ip}:{port} is already connected"),
            )),
        };
        self.out.push(Output::Connected { attempt, result });
    }

    fn connect_sync(&mut self, now: Millis, id: u32, ip: Ipv4Addr, port: u16, ssl: bool) {
        // A registered asynchronous connection stays one, whoever made it come up.
        self.managed.entry(id).or_insert_with(|| Managed {
            origin: Origin::Sync,
            ip: ip.to_string().into(),
            port: port.into(),
            ssl,
            mode: Mode::ServerToDevice,
            kind: 0,
            status: 0,
            phase: Phase::Connected,
            dead_token: 0,
        });
        self.link_up(now, id);
    }

    /// An asynchronous connection's timer: the next try, or the end of one.
    pub(super) fn wake_async(&mut self, now: Millis, id: u32, token: u64) {
        let Some(entry) = self.managed.get(&id) else { return };
        match entry.phase {
            Phase::Waiting(current) if current == token => self.begin_try(now, id),
            Phase::Trying(current) if current == token => self.finish_try(now, id),
            Phase::Waiting(_) | Phase::Trying(_) | Phase::Connected => {}
        }
    }

    fn begin_try(&mut self, now: Millis, id: u32) {
        let Some((ip, port, ssl)) = self.registered_address(id) else { return };
        let due = now + self.dial_time(ip, port, ssl);
        let token = self.timers.token();
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.phase = Phase::Trying(token);
        }
        self.timers.set(due, Wake::Async { id, token });
        if self.rules.tells_tries {
            self.tell(now, id, Status::TryToConnect as i32);
        }
    }

    fn finish_try(&mut self, now: Millis, id: u32) {
        let Some((ip, port, ssl)) = self.registered_address(id) else { return };
        // Another device at the address is as good as none: the gateway wants this one.
        if self.dial(ip, port, ssl) == Answer::Device(id) {
            self.link_up(now, id);
        } else {
            self.wait(now, id, self.rules.timing.reconnect_interval_ms);
            self.tell(now, id, cannot_connect_status(ssl));
        }
    }

    /// Where a registered connection leads: no address when the client gave none.
    fn registered_address(&self, id: u32) -> Option<(Option<Ipv4Addr>, u16, bool)> {
        let entry = self.managed.get(&id)?;
        let port = u16::try_from(entry.port).unwrap_or(0);
        Some((entry.ip.parse().ok(), port, entry.ssl))
    }

    /// Sets an asynchronous connection to wait this long for its next try.
    pub(super) fn wait(&mut self, now: Millis, id: u32, delay: u64) {
        let token = self.timers.token();
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.phase = Phase::Waiting(token);
            self.timers.set(now + delay, Wake::Async { id, token });
        }
    }

    /// The connection of a managed device is up.
    fn link_up(&mut self, now: Millis, id: u32) {
        let (Some(machine), Some(entry)) = (self.machines.get_mut(&id), self.managed.get_mut(&id))
        else {
            return;
        };
        machine.linked = true;
        machine.dial_token = 0;
        entry.phase = Phase::Connected;
        entry.kind = machine.device.kind;
        entry.mode = machine.device.mode;
        entry.dead_token = 0;
        let status = connected_status(machine.device.ssl);
        self.pending.remove(&id);
        self.tell(now, id, status);
    }

    /// The connection of a managed device is gone, and everybody is told.
    ///
    /// An asynchronous one waits for its next try; any other leaves the list.
    pub(super) fn link_down(&mut self, now: Millis, id: u32) {
        if !self.is_connected(id) {
            return;
        }
        self.tell(now, id, Status::Disconnected as i32);
        self.unlink(now, id);
    }

    /// As `link_down`, without a word.
    pub(super) fn unlink(&mut self, now: Millis, id: u32) {
        if !self.is_connected(id) {
            return;
        }
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.linked = false;
        }
        if self.managed.get(&id).is_some_and(|entry| entry.origin == Origin::Async) {
            self.wait(now, id, self.rules.timing.reconnect_interval_ms);
        } else {
            self.managed.remove(&id);
        }
        self.schedule_dial(now, id, self.rules.timing.dial_interval_ms);
    }

    /// Makes a device dial in after `delay`, if that is its mode.
    pub(super) fn schedule_dial(&mut self, now: Millis, id: u32, delay: u64) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.dial_token = 0;
        let device = &machine.device;
        if device.mode == Mode::DeviceToServer && device.powered && !machine.linked {
            let token = self.timers.token();
            machine.dial_token = token;
            self.timers.set(now + delay, Wake::Dial { id, token });
        }
    }

    /// A device dials in: accepted, or refused and pending.
    pub(super) fn wake_dial(&mut self, now: Millis, id: u32, token: u64) {
        let Some(machine) = self.machines.get(&id) else { return };
        if machine.dial_token != token || machine.linked {
            return;
        }
        let (ssl, ip) = (machine.device.ssl, machine.device.ip);
        if !self.network {
            self.schedule_dial(now, id, self.rules.timing.dial_interval_ms);
        } else if self.filter.allow_all || self.allowed.contains(&id) {
            self.managed.entry(id).or_insert_with(|| Managed {
                origin: Origin::Accepted,
                ip: ip.to_string().into(),
                port: 0,
                ssl,
                mode: Mode::DeviceToServer,
                kind: 0,
                status: 0,
                phase: Phase::Connected,
                dead_token: 0,
            });
            self.link_up(now, id);
        } else {
            self.pending.insert(id, self.clock.unix_seconds(now));
            self.tell(now, id, not_allowed_status(ssl));
            self.schedule_dial(now, id, self.rules.timing.dial_interval_ms);
        }
    }

    /// A silent device will be found dead, at a moment drawn within the keep-alive.
    pub(super) fn schedule_death(&mut self, now: Millis, id: u32) {
        if !self.is_connected(id) {
            return;
        }
        let keep_alive = self.rules.timing.keep_alive_ms;
        if keep_alive == 0 {
            self.link_down(now, id);
            return;
        }
        let token = self.timers.token();
        let delay = self.rng.u64(0..=keep_alive);
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.dead_token = token;
        }
        self.timers.set(now + delay, Wake::Dead { id, token });
    }

    pub(super) fn wake_dead(&mut self, now: Millis, id: u32, token: u64) {
        if self.managed.get(&id).is_some_and(|entry| entry.dead_token == token) {
            self.link_down(now, id);
        }
    }
}
