//! How numbers, texts and names become bytes, and back.
//!
//! May not know what they mean. Little-endian; texts behind their length. Reading never fails
//! loudly: `None` is what does not make sense.

use crate::fleet::{DeviceInfo, DeviceType, Known, Mode, Remembered, Status};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;

/// What follows of the absence of a device: nothing, when it left, or how long it lasted.
const LEFT_UNKNOWN: u8 = 0;
const LEFT_AT: u8 = 1;
const ABSENCE: u8 = 2;

/// Reads from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn moment(&mut self) -> Option<Moment> {
        self.u64().map(|millis| Moment::from_millis(millis.cast_signed()))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    fn gateway(&mut self) -> Option<GatewayName> {
        self.text()?.parse().ok()
    }

    pub(super) fn subject(&mut self) -> Option<Subject> {
        Some(match self.u8()? {
            0 => Subject::Bridge,
            1 => Subject::Gateway(self.gateway()?),
            2 => Subject::Device(self.gateway()?, DeviceId::new(self.u32()?)?),
            _ => return None,
        })
    }

    fn status(&mut self) -> Option<Status> {
        self.i32().map(Status::from_code)
    }

    fn known(&mut self) -> Option<Known> {
        Some(Known {
            connected: self.flag()?,
            since: self.moment()?,
            exact: self.flag()?,
            whole: false,
            status: self.status()?,
        })
    }

    fn info(&mut self) -> Option<DeviceInfo> {
        Some(DeviceInfo {
            device_type: DeviceType::from_code(self.i32()?),
            ip: self.option(|it| it.u32().map(Into::into))?,
            port: self.i32()?,
            mode: Mode::from_code(self.i32()?),
            ssl: self.flag()?,
            auto_reconnect: self.flag()?,
        })
    }

    /// Builds made before version 2 stored no absence but, by the wall clock, when a device left
    /// the list. That says nothing of how long its absence was observed, so it is counted from 0.
    fn absence(&mut self) -> Option<i64> {
        match self.u8()? {
            LEFT_UNKNOWN => Some(0),
            LEFT_AT => self.moment().map(|_| 0),
            ABSENCE => self.u64().map(u64::cast_signed),
            _ => None,
        }
    }

    /// A device's last state; `None` also where something follows it.
    pub(super) fn remembered(mut self) -> Option<Remembered> {
        let remembered = Remembered {
            seq: self.u64()?,
            status: self.option(Self::status)?,
            known: self.option(Self::known)?,
            told: {
                let count = self.u8()?;
                (0..count).map(|_| self.status()).collect::<Option<_>>()?
            },
            managed: self.flag()?,
            info: self.option(Self::info)?,
            // The first builds stored neither.
            absent_ms: if self.is_empty() { 0 } else { self.absence()? },
            forgotten: if self.is_empty() { false } else { self.flag()? },
        };
        self.is_empty().then_some(remembered)
    }
}

/// Writes at the end of bytes.
pub(super) trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn put_u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    fn put_i32(&mut self, number: i32) {
        self.put(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn put_flag(&mut self, flag: bool) {
        self.put(&[u8::from(flag)]);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        // A frame that is longer than its length can say is refused when it is sealed.
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put(bytes);
    }

    fn put_option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn put_subject(&mut self, subject: &Subject) {
        match subject {
            Subject::Bridge => self.put(&[0]),
            Subject::Gateway(name) => {
                self.put(&[1]);
                self.put_bytes(name.as_str().as_bytes());
            }
            Subject::Device(name, device_id) => {
                self.put(&[2]);
                self.put_bytes(name.as_str().as_bytes());
                self.put_u32(device_id.get());
            }
        }
    }

    fn put_remembered(&mut self, device: &Remembered) {
        self.put_u64(device.seq);
        self.put_option(device.status, |it, status| it.put_i32(status.code()));
        self.put_option(device.known, |it, known| {
            it.put_flag(known.connected);
            it.put_u64(known.since.millis().cast_unsigned());
            it.put_flag(known.exact);
            it.put_i32(known.status.code());
        });
        // There are five statuses of a retry loop.
        let told = device.told.get(..usize::from(u8::MAX)).unwrap_or(&device.told);
        self.put(&[u8::try_from(told.len()).unwrap_or(u8::MAX)]);
        for status in told {
            self.put_i32(status.code());
        }
        self.put_flag(device.managed);
        self.put_option(device.info, |it, info| {
            it.put_i32(info.device_type.code());
            it.put_option(info.ip, |it, ip| it.put_u32(ip.into()));
            it.put_i32(info.port);
            it.put_i32(info.mode.code());
            it.put_flag(info.ssl);
            it.put_flag(info.auto_reconnect);
        });
        self.put(&[ABSENCE]);
        self.put_u64(device.absent_ms.cast_unsigned());
        self.put_flag(device.forgotten);
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
