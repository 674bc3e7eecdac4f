//! The arguments of `report` and `history` for period, gateways and devices.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{ToSpan as _, ZonedDateTime};

use super::WrongUsage;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::period::{Period, age, time_zone};

/// Which time, gateways and devices.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Selected {
    /// A calendar month, such as 2026-11
    #[arg(long, value_name = "MONTH", value_parser = month)]
    #[arg(conflicts_with_all = ["from", "to", "last"])]
    month: Option<String>,
    /// The beginning: 2026-11-30, 2026-11, 2026-11-30T08:00:00Z, or an age such as 24h
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    from: Option<String>,
    /// The end; a date or month is included [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    to: Option<String>,
    /// The time up to now, such as 30d
    #[arg(long, value_name = "AGE", value_parser = checked_age)]
    last: Option<String>,
    /// The time zone of dates, such as Europe/Berlin [default: time_zone of the configuration]
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    pub(crate) time_zone: Option<TimeZone>,
    /// Only these gateways
    #[arg(long = "gateway", value_name = "NAME", value_delimiter = ',')]
    gateways: Vec<GatewayName>,
    /// Only these devices
    #[arg(long = "device", value_name = "ID", value_delimiter = ',')]
    devices: Vec<DeviceId>,
}

/// The time that is meant where none is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DefaultPeriod {
    /// The last whole calendar month.
    LastMonth,
    /// The last 24 hours.
    LastDay,
}

impl Selected {
    /// The period. It has no end where none was given.
    ///
    /// # Errors
    /// Reports mistakes in the arguments.
    pub(crate) fn period(
        &self,
        default: DefaultPeriod,
        zone: &TimeZone,
        now: Moment,
    ) -> Result<Period, WrongUsage> {
        let (from, to) = match (&self.month, &self.last, &self.from, &self.to, default) {
            (Some(month), ..) => (Some(month.clone()), Some(month.clone())),
            (None, None, None, None, DefaultPeriod::LastMonth) => {
                let month = last_month(now.timestamp().to_zoned_datetime(zone.clone()));
                (Some(month.clone()), Some(month))
            }
            (None, Some(age), ..) => (Some(age.clone()), None),
            (None, None, from, to, _) => (from.clone(), to.clone()),
        };
        let period = Period::parse(from.as_deref(), to.as_deref(), zone, now);
        let period = period.map_err(|error| WrongUsage(error.to_string()))?;
        if period.from >= period.to.unwrap_or(now).min(now) {
            let text = "the period is in the future or empty; choose an earlier one";
            return Err(WrongUsage(text.to_owned()));
        }
        Ok(period)
    }

    pub(crate) fn gateways(&self) -> BTreeSet<GatewayName> {
        self.gateways.iter().cloned().collect()
    }

    pub(crate) fn device_ids(&self) -> BTreeSet<DeviceId> {
        self.devices.iter().copied().collect()
    }
}

fn last_month(now: ZonedDateTime) -> String {
    let last = now.date().first_of_month().saturating_sub(1.day());
    last.strftime("%Y-%m").to_string()
}

fn checked_age(text: &str) -> Result<String, &'static str> {
    age(text).map(|_| text.to_owned()).ok_or("write an age as in 30d or 24h")
}

fn month(text: &str) -> Result<String, String> {
    let is_month = text.len() == 7 && format!("{text}-01").parse::<jiff::civil::Date>().is_ok();
    if is_month { Ok(text.to_owned()) } else { Err("write a month as in 2026-11".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        selected: Selected,
    }

    fn read(words: &str) -> Result<(String, String), String> {
        let words = std::iter::once("report").chain(words.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        let zone = arguments.selected.time_zone.clone().unwrap_or(TimeZone::UTC);
        // 2026-12-01T00:30 in Berlin.
        let now = Moment::from_millis(1_796_081_400_000);
        let period = arguments.selected.period(DefaultPeriod::LastMonth, &zone, now);
        let period = period.map_err(|error| error.to_string())?;
        let text = |at: Moment| at.timestamp().to_string();
        Ok((text(period.from), period.to.map_or_else(String::new, text)))
    }

    #[test]
    fn the_default_is_the_last_whole_month_of_the_zone() {
        let utc = ("2026-10-01T00:00:00Z".to_owned(), "2026-11-01T00:00:00Z".to_owned());
        assert_eq!(read(""), Ok(utc));
        let berlin = ("2026-10-31T23:00:00Z".to_owned(), "2026-11-30T23:00:00Z".to_owned());
        assert_eq!(read("--time-zone Europe/Berlin"), Ok(berlin));
        let october = ("2026-09-30T22:00:00Z".to_owned(), "2026-10-31T23:00:00Z".to_owned());
        assert_eq!(read("--month 2026-10 --time-zone Europe/Berlin"), Ok(october));
        assert_eq!(read("--last 30d").unwrap(), ("2026-10-31T23:30:00Z".to_owned(), String::new()));
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            ("--month 2026-13", "as in 2026-11"),
            ("--month 2026", "as in 2026-11"),
            ("--month 2026-11 --last 1d", "cannot be used"),
            ("--last 30", "as in 30d"),
            ("--last 2026-11", "as in 30d"),
            ("--from 2026-11-02 --to 2026-10-31", "ends before it begins"),
            ("--from 2027-01-01", "in the future"),
            ("--from soon", "from is \"soon\""),
            ("--from 2026", "a year as its months"),
            ("--time-zone Europe/Berln", "Europe/Berlin"),
            ("--gateway Lobby", "is not a gateway name"),
            ("--device 0", "is not a device ID"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
