//! The broker without its transport: engines, clients and an oracle in one thread, from one seed. Never shipped.
//!
//! | file | what it is |
//! |---|---|
//! | [`world`] | engines, mailboxes, connections, the clock: what can happen next, and one of it happening |
//! | [`client`] | a correct client with a memory of its own |
//! | [`oracle`] | what is owed and what is allowed: a naive broker that never predicts more than the standard does |
//! | `checks` | what must hold of each packet that passes |
//! | [`story`] | a sequence of operations, and how it is told |
//! | [`fault`] | what is broken on purpose, to see that the checks bite |
//! | [`life`] | a seed is a life: what a world is made of, what clients do in it, what goes wrong, all from one number |
//! | [`marks`] | rare states by name, and which of them a run has come through |
//!
//! What holds, and where that is seen to:
//!
//! | | invariant | checked in | when |
//! |---|---|---|---|
//! | I1 | no loss after an acknowledgement but by a named policy, and each counter excuses only what it counts: those of full queues, by Session; those of Shared Subscriptions; those of long lines | `oracle/debts` | at rest, and when all are back |
//! | I1 | what was refused has come to those that surely had room for it | `oracle/burdens`, `oracle/debts` | at rest, and when all are back |
//! | I2 | QoS 2 comes exactly once | `oracle/delivery`, `client/receiver` | each delivery |
//! | I3 | QoS 1 comes again only on another connection, with DUP | `checks/flights`, `oracle/delivery` | each delivery |
//! | I4 | order, by publisher, topic and QoS; acknowledgements in order of receipt | `oracle/delivery`, `checks/answers` | each delivery, each answer |
//! | I5 | no delivery without cause | `oracle/delivery` | each delivery |
//! | I6 | what is retained is one of the outcomes that may be; a replay is whole and never stale | `oracle/retained`, `oracle/debts`, `oracle/delivery` | when all are back; at rest; each delivery |
//! | I7 | Packet Identifiers are unique in flight and end; Receive Maximum | `checks/flights` | each packet; when all are back |
//! | I8 | what is charged is given back: memory, mail, records | `world/end` | mail every 1,000 events; all when all has ended |
//! | I8 | gauges are what they count; PUBLISH packets handled and sent, and refusals, are what was counted | `Engine::check`, `world/end` | every 1,000 events, at rest |
//! | I8 | published = delivered + refused + dropped | `Oracle::balance` | when all are back, in worlds where nothing else can become of a message: one of eight |
//! | I9 | a client has one connection, and the loser hears so first | `checks/owners` | each packet |
//! | I10 | Wills when they are due, and never else | `oracle`, `oracle/delivery` | each delivery; at rest |
//! | I12 | every packet is legal where it comes, and no larger than its receiver takes | `wire`, `client`, `world/observe` | each packet |
//! | I12 | a publish is refused only with 0x97, to a 5.0 publisher, where a limit may be met, and somebody may have lacked room; or for a full disk | `oracle`, `oracle/disk` | each answer |
//! | I12 | a CONNECT or SUBSCRIBE is refused for a full disk only if something would be written for it | `world/observe`, `oracle/disk` | each answer |
//! | I14 | what waited for room on the disk goes on when there is some | `world/end` | when all are back |
//! | I13 | who breaks rules makes no difference to others: packets, forwards, records, events | `world/twin` | each call, in one seed of 50 |
//! | I14 | no deadlock: when nothing can happen nothing is held, and every request is answered | `world/end` | when all are back |
//! | I15 | one call's work is bounded, so that all have their turn | `world/calls` | each call |
//! | I16 | Sessions, Subscriptions, what is retained and what waits are the same after the broker's death, with any number of shards | `world/crash` | one crash of four, which comes at rest |
//! | I1, I2, I6, I10 | the same holds across the broker's death: lost power, or a killed process | as above, with what `oracle/crash` says | whenever it dies |
//! | | the journal opens again undamaged, and no record is written after its end | `world/journal` | each restart, each call |
//!
//! I11 (Keep Alive) has tests in the engine's suites.
//!
//! What the oracle lets pass, and by which rule (for the broker's death there are more, in `oracle/crash`):
//!
//! | | why |
//! |---|---|
//! | QoS 0 is lost behind a long line, counted once for all who would have had it | `EngineConfig::fanout_waiting_max`; it is to be looked for nowhere then (section 4.3.1) |
//! | what is to be retained at QoS 0 has no effect, where memory is scarce and the line long | it may be discarded at any time (section 3.3.1.3) |
//! | QoS 2 comes again after a PUBREC with 0x97 that nobody was there to hear | that PUBREC has ended the exchange [MQTT-4.3.3-9] |
//! | where the disk is full: a publish hears 0x97, or waits, that would have something written: as retained, as the identifier of QoS 2 in a Session that lasts, or for a Session that lasts; so a CONNECT for a Session that lasts or with a Will, unless one that lasts is there; so a SUBSCRIBE of a Session that lasts, unless in place of another | what would be written has no room; each from when a shard was told that the disk is full until all know that it is not |
//! | QoS 0 does not come of a message that its publisher was not there to hear of, where it may be refused | it is told 0x97 when it sends it again [MQTT-4.4.0-1] |
//! | publishes that waited for memory, or for room on the disk, go with their connection | they were not acknowledged; their client sends them again |
//! | a Session that was about to end may have gone on or not, until a CONNACK tells | a deadline may be kept a little late (section 3.1.2.11.2) |
//! | a Will whose time had come when its client came back | either may have been first [MQTT-3.1.3-9] |
//! | what was refused need not come to a Session that is or was a member of a Shared Subscription, or for which more may have waited than its queue holds, nor to any where memory was scarce | 0x97 says that at least one could not take it, and where memory is scarce nobody has it |
//! | which member of a group lacked room for what was refused | nobody is told whom it was meant for |
//! | a queue's drop of a message that was not surely owed excuses one that was, of the same Session; a group's or a line's one of any group or line; and a queue's drop one of a group, whose member it may have been, or of QoS 0 | what was dropped is counted and not named |
//! | a group's QoS 2 message is gone with the Session of a member that may have begun it | [MQTT-4.8.2-5] |
//! | a group's message comes to another member once for each that was lost | [MQTT-4.8.2-4]; QoS 2 that has begun stays [MQTT-4.8.2-5] |
//! | Sessions are told of drops at doubling counts, the first at a takeover perhaps of the Session before | [`sol_engine::Event::Dropped`]; the counter is exact |
//! | one call sends as much as a Session may hold | what a lost member of a Shared Subscription held is handed on at once ([`sol_engine::Engine::handle`]) |
//!
//! ```
//! use sol_codec::ProtocolVersion;
//! use sol_sim::world::{ConnectPlan, PublishPlan, Setup, World};
//!
//! let clients = vec![ProtocolVersion::V5, ProtocolVersion::V311];
//! let mut world = World::new(Setup { seed: 1, clients, ..Setup::default() });
//! world.connect(0, &ConnectPlan::default());
//! world.connect(1, &ConnectPlan::default());
//! world.rest()?;
//! world.subscribe(0, &[("a/#".into(), Default::default())], None);
//! world.rest()?;
//! world.publish(1, &PublishPlan { topic: "a/b".into(), ..PublishPlan::default() });
//! world.recover()?;
//! world.end()?;
//! # Ok::<(), sol_sim::Violation>(())
//! ```
#![forbid(unsafe_code)]

mod checks;
pub mod client;
pub mod fault;
mod hash;
pub mod life;
pub mod marks;
pub mod oracle;
pub mod packet;
mod rng;
pub mod story;
mod violation;
mod wire;
pub mod world;

pub use rng::Rng;
pub use violation::{Verdict, Violation};
