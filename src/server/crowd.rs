//! Who gives way when strangers come in their numbers: whoever has the most connections, so that nobody keeps others out.
//!
//! An address is what one machine has: all of an IPv4 address, the first half of an IPv6 address. One that has many
//! connections loses its own; those that have not shown that they speak TLS go first, then the oldest.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Connections at once.
pub(crate) const CONNECTIONS: usize = 256;
/// Connections at once from one address.
pub(crate) const FROM_ONE: usize = 32;

/// Whose connections are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Source {
    V4([u8; 4]),
    /// A /64: a machine chooses the rest for itself.
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// One connection.
struct Guest {
    source: Source,
    /// Whether its handshake is over.
    shaken: Arc<AtomicBool>,
    connection: AbortHandle,
}

/// The connections that there are, the oldest first.
#[derive(Default)]
pub(crate) struct Crowd(VecDeque<Guest>);

impl Crowd {
    /// Makes room for a connection from an address. Whether one had to give way.
    pub fn make_room(&mut self, from: IpAddr) -> bool {
        self.0.retain(|guest| !guest.connection.is_finished());
        let mut counts: HashMap<Source, usize> = HashMap::new();
        self.0.iter().for_each(|guest| *counts.entry(guest.source).or_default() += 1);
        let own = Source::from(from);
        let of = |source: Source| counts.get(&source).copied().unwrap_or_default();
        let most = counts.values().copied().max().unwrap_or_default();
        let may_go = |guest: &Guest| match of(own) >= FROM_ONE {
            true => guest.source == own,
            false => self.0.len() >= CONNECTIONS && of(guest.source) == most,
        };
        let unshaken = |guest: &Guest| !guest.shaken.load(Ordering::Relaxed);
        let first = self.0.iter().position(|guest| may_go(guest) && unshaken(guest));
        let goes = first.or_else(|| self.0.iter().position(may_go));
        let gone = goes.and_then(|at| self.0.remove(at));
        gone.inspect(|guest| guest.connection.abort()).is_some()
    }

    /// A connection that has come.
    pub fn add(&mut self, from: IpAddr, shaken: Arc<AtomicBool>, connection: AbortHandle) {
        self.0.push_back(Guest { source: from.into(), shaken, connection });
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    /// A crowd, and its connections with whom they are from.
    #[derive(Default)]
    struct Scene {
        crowd: Crowd,
        connections: Vec<(IpAddr, JoinHandle<()>)>,
        dropped: usize,
    }

    impl Scene {
        fn come(&mut self, from: &str, shaken: bool) {
            let from: IpAddr = from.parse().unwrap();
            self.dropped += usize::from(self.crowd.make_room(from));
            let connection = tokio::spawn(std::future::pending());
            self.crowd.add(from, Arc::new(AtomicBool::new(shaken)), connection.abort_handle());
            self.connections.push((from, connection));
        }

        /// How many are left from an address, once those that were told to go have gone.
        async fn left(&self, from: &str) -> usize {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let from: IpAddr = from.parse().unwrap();
            self.connections.iter().filter(|(whose, one)| *whose == from && !one.is_finished()).count()
        }
    }

    #[tokio::test]
    async fn who_comes_in_numbers_keeps_no_other_out() {
        let mut scene = Scene::default();
        scene.come("192.0.2.1", true);
        for number in 0..1_000 {
            scene.come(["198.51.100.7", "2001:db8::1"][number % 2], true);
        }
        assert_eq!(scene.left("192.0.2.1").await, 1, "the oldest of all, and an honest one");
        assert_eq!(scene.left("198.51.100.7").await, FROM_ONE);
        assert_eq!(scene.left("2001:db8::1").await, FROM_ONE);
        assert_eq!(scene.dropped, 1_000 - 2 * FROM_ONE);
    }

    #[tokio::test]
    async fn the_largest_of_many_addresses_gives_way() {
        let mut scene = Scene::default();
        scene.come("192.0.2.1", true);
        (0..20).for_each(|_| scene.come("198.51.100.7", true));
        (0..CONNECTIONS - 21).for_each(|number| scene.come(&format!("203.0.113.{number}"), true));
        assert_eq!(scene.dropped, 0);
        (0..15).for_each(|number| scene.come(&format!("192.0.2.{}", number + 2), true));
        assert_eq!((scene.left("198.51.100.7").await, scene.left("192.0.2.1").await), (5, 1));
    }

    #[tokio::test]
    async fn those_that_have_not_shaken_hands_go_first_then_the_oldest() {
        let mut scene = Scene::default();
        let shaken = |number: usize| number != 100;
        (0..CONNECTIONS)
            .for_each(|number| scene.come(&format!("10.0.{}.{}", number / 200, number % 200), shaken(number)));
        scene.come("192.0.2.1", true);
        assert_eq!((scene.left("10.0.0.100").await, scene.left("10.0.0.0").await), (0, 1));
        scene.come("192.0.2.2", true);
        assert_eq!(scene.left("10.0.0.0").await, 0);
    }

    #[tokio::test]
    async fn one_network_of_ipv6_is_one_address_and_one_that_has_ended_is_none() {
        let mut scene = Scene::default();
        (0..FROM_ONE).for_each(|number| scene.come(&format!("2001:db8::{number}:1"), true));
        scene.connections[0].1.abort();
        tokio::task::yield_now().await;
        scene.come("2001:db8::ffff", true);
        assert_eq!(scene.dropped, 0, "there was room");
        scene.come("2001:db8::fffe", true);
        scene.come("2001:db8:0:1::1", true);
        assert_eq!(scene.dropped, 1);
        assert_eq!(Source::from("::ffff:192.0.2.1".parse::<IpAddr>().unwrap()), Source::V4([192, 0, 2, 1]));
    }
}
