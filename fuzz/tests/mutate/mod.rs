//! Inputs made of others: one of the corpus with a few changes, all of them decided by a seed.

use fastrand::Rng;

/// Makes one input.
pub(crate) struct Mutator<'a> {
    random: Rng,
    inputs: &'a [Vec<u8>],
    words: &'a [Vec<u8>],
    max_len: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, inputs: &'a [Vec<u8>], words: &'a [Vec<u8>], max_len: usize) -> Self {
        Self { random: Rng::with_seed(seed), inputs, words, max_len }
    }

    pub(crate) fn input(mut self) -> Vec<u8> {
        let mut input = self.other();
        for _ in 0..self.random.usize(1..=6) {
            self.change(&mut input);
        }
        input.truncate(self.max_len);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let piece = self.piece(input.len());
        match self.random.u8(0..8) {
            // A bit, a byte, a piece gone, a piece twice, a piece elsewhere, a word, another input's piece, its rest.
            0 if !piece.is_empty() => input[piece.start] ^= 1 << self.random.u8(0..8),
            1 => {
                let byte = self.random.u8(..);
                input.splice(piece.start..piece.end.min(piece.start + 1), [byte]);
            }
            2 => drop(input.drain(piece)),
            3 => {
                let copy = input[piece.clone()].to_vec();
                input.splice(piece.end..piece.end, copy);
            }
            4 => {
                let cut: Vec<u8> = input.drain(piece).collect();
                let place = self.random.usize(0..=input.len());
                input.splice(place..place, cut);
            }
            5 => {
                let word = self.random.choice(self.words).cloned().unwrap_or_default();
                let end = if self.random.bool() { piece.start } else { piece.end };
                input.splice(piece.start..end, word);
            }
            6 => {
                let other = self.other();
                let of_other = self.piece(other.len());
                input.splice(piece.start..piece.start, other[of_other].iter().copied());
            }
            _ => {
                let other = self.other();
                let from = self.random.usize(0..=other.len());
                input.truncate(piece.start);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn other(&mut self) -> Vec<u8> {
        self.random.choice(self.inputs).cloned().unwrap_or_default()
    }

    /// Some place and a few bytes from there, rarely many.
    fn piece(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.random.usize(0..=len);
        let most = if self.random.u8(0..8) == 0 { len - start } else { (len - start).min(12) };
        start..start + self.random.usize(0..=most)
    }
}

/// The words of a dictionary in libFuzzer's format: `"…"` a line, with `\\`, `\"` and `\xNN`.
pub(crate) fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let quoted = |line: &str| line.trim().strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
    dictionary.lines().filter_map(quoted).map(|text| unescaped(&text)).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut word, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind) {
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let hex = std::str::from_utf8(&digits).expect("hexadecimal digits");
                word.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
                rest = &behind[3..];
            }
            (b'\\', [escaped, ..]) => {
                word.push(*escaped);
                rest = &behind[1..];
            }
            _ => word.push(*byte),
        }
    }
    word
}
