//! Commands on a null namespace, to be counted by callgrind (`instructions.py`): `instructions DEPTH BATCHES
//! [QUEUES [shadow]]`. Only `Local::turn` is the device; the rest is its guest.

use nvmet_benches::{Layout, Local, null};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let (Some(depth), Some(batches)) = (number(0), number(1)) else {
        eprintln!("usage: instructions DEPTH BATCHES [QUEUES [shadow]]");
        std::process::exit(2);
    };
    let queues = number(2).and_then(|queues| u16::try_from(queues).ok()).unwrap_or(1);
    let shadow = arguments.get(3).is_some_and(|word| word == "shadow");
    let mut local = Local::new(&null(), Layout { queues, shadow, ..Layout::default() });
    for _ in 0..batches {
        local.put(depth);
        local.serve(depth);
    }
}
