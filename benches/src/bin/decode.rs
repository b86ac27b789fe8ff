//! Decodes one packet again and again: `decode NAME COUNT`, where NAME is one of `packets::samples`. For counting
//! instructions, or processor time where a stopwatch would measure the neighbours.

use std::hint::black_box;
use std::process::ExitCode;

use sol_benches::packets;
use sol_codec::{DecodeLimits, Decoder, Direction, decode};

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let samples = packets::samples();
    let parsed = match arguments.as_slice() {
        [_, name, count] => samples
            .iter()
            .find(|sample| sample.name == name.trim_end_matches(", same topic"))
            .zip(count.parse().ok())
            .map(|(sample, count)| (sample, count, name.ends_with(", same topic"))),
        _ => None,
    };
    let Some((sample, count, repeated)) = parsed else {
        let names: Vec<_> = samples.iter().map(|sample| sample.name).collect();
        eprintln!("usage: decode NAME COUNT, where NAME is one of {names:?}, or that and \", same topic\"");
        return ExitCode::from(2);
    };
    let limits = DecodeLimits {
        maximum_packet_size: 1 << 20,
        direction: Direction::FromClient,
        ..DecodeLimits::default()
    };
    let bytes = packets::encoded(&sample.packet, sample.version);
    let mut decoder = Decoder::default();
    let decode_one = |bytes: &[u8], decoder: &mut Decoder| {
        if repeated {
            black_box(decoder.decode(bytes, sample.version, &limits)).is_ok()
        } else {
            black_box(decode(bytes, sample.version, &limits)).is_ok()
        }
    };
    let decoded = (0..count)
        .filter(|_: &u64| decode_one(black_box(&bytes), &mut decoder))
        .count();
    println!("{decoded}");
    ExitCode::SUCCESS
}
