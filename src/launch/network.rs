//! What processes tried on a network that isn't there.
//!
//! A network namespace with nothing but its loopback device counts every packet that had no way out
//! (`/proc/PID/net/snmp`; RFC 1213, `ipOutNoRoutes`). So that something was tried is known for certain
//! afterwards, without having watched; where it was to go isn't known.

use std::fs;

/// How often this process's network namespace had no way out for something, or nobody who listened on
/// its loopback device (where a local name server would).
pub(super) fn unreached() -> u32 {
    let v4 = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    let sum = counter(&v4, "Ip", "OutNoRoutes")
        + counter(&v4, "Udp", "NoPorts")
        + line(&v6, "Ip6OutNoRoutes")
        + line(&v6, "Udp6NoPorts");
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// A counter in the form of `snmp`: two lines for each protocol, names and values.
fn counter(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| {
        let (head, rest) = line.split_once(':')?;
        (head == protocol).then_some(rest)
    });
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// A counter in the form of `snmp6`: a name and a value on each line.
fn line(text: &str, name: &str) -> u64 {
    let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs
        .find(|(found, _)| *found == name)
        .map_or(0, |(_, value)| value.trim().parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_protocol_and_name() {
        let v4 = "Ip: Forwarding OutNoRoutes Last\nIp: 1 7 9\nUdp: InDatagrams NoPorts\nUdp: 3 4\n";
        assert_eq!(counter(v4, "Ip", "OutNoRoutes"), 7);
        assert_eq!(counter(v4, "Udp", "NoPorts"), 4);
        assert_eq!(counter(v4, "Tcp", "NoPorts"), 0);
        let v6 = "Ip6InReceives   \t5\nIp6OutNoRoutes                  \t12\n";
        assert_eq!(line(v6, "Ip6OutNoRoutes"), 12);
        assert_eq!(line(v6, "Udp6NoPorts"), 0);
    }
}
