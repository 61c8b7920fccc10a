use core::convert::Infallible;
use std::{cell::RefCell, collections::BTreeSet, rc::Rc, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::testing::config;

const DEBOUNCE_MS: u32 = 20;
const TIMEOUT_MS: u32 = 5_000;

fn entry() -> Entry {
    Entry::new(DEBOUNCE_MS, TIMEOUT_MS)
}

/// Presses and releases keys in a row, each for 50 ms.
fn type_keys(entry: &mut Entry, now_ms: &mut u64, keys: &[u8]) -> Vec<Typed> {
    let mut typed = Vec::new();
    for key in keys {
        for pressed in [Pressed::One(*key), Pressed::None] {
            for _ in 0..10 {
                *now_ms += 5;
                typed.extend(entry.look(*now_ms, pressed));
            }
        }
    }
    typed
}

fn entered(digits: &str) -> Typed {
    Typed::Entered(digits.try_into().unwrap())
}

#[test]
fn entries() {
    use Typed::{Cleared, Digit, TooLong};
    let cases: &[(&str, &[Typed])] = &[
        ("1#", &[Digit(1), entered("1")]),
        ("11#", &[Digit(1), Digit(2), entered("11")]),
        ("1*2#", &[Digit(1), Cleared, Digit(1), entered("2")]),
        ("*##1#", &[Digit(1), entered("1")]),
        ("AB1CD#", &[Digit(1), entered("1")]),
        ("1#2#", &[Digit(1), entered("1"), Digit(1), entered("2")]),
    ];
    for (keys, expected) in cases {
        assert_eq!(type_keys(&mut entry(), &mut 0, keys.as_bytes()), *expected, "{keys}");
    }
    let mut counted: Vec<_> = (1..=12).map(Digit).collect();
    counted.push(entered("123456789012"));
    assert_eq!(type_keys(&mut entry(), &mut 0, b"123456789012#"), counted);
    for end in [b'#', b'*'] {
        let typed = type_keys(
            &mut entry(),
            &mut 0,
            &[b"12345678901234".as_slice(), &[end], b"5#"].concat(),
        );
        assert_eq!(typed[12..], [TooLong, Cleared, Digit(1), entered("5")]);
    }
}

#[test]
fn keys() {
    use Pressed::{Many, None as Up, One};
    const ONE: Pressed = One(b'1');
    const TWO: Pressed = One(b'2');
    type Case = (&'static str, &'static [(u64, Pressed)], usize);
    let cases: &[Case] = &[
        ("a key", &[(0, ONE), (20, ONE)], 1),
        ("not long enough", &[(0, ONE), (19, ONE), (20, Up)], 0),
        (
            "bouncing down",
            &[(0, ONE), (5, Up), (10, ONE), (30, ONE), (40, ONE)],
            1,
        ),
        (
            "bouncing up",
            &[
                (0, ONE),
                (20, ONE),
                (100, Up),
                (105, ONE),
                (150, ONE),
                (160, Up),
                (180, Up),
            ],
            1,
        ),
        ("held", &[(0, ONE), (20, ONE), (500, ONE), (4_000, ONE)], 1),
        (
            "twice",
            &[(0, ONE), (20, ONE), (30, Up), (50, Up), (60, ONE), (80, ONE)],
            2,
        ),
        ("two at once", &[(0, Many), (20, Many), (40, Many)], 0),
        (
            "two, then one of them",
            &[(0, Many), (20, Many), (30, ONE), (60, ONE), (90, TWO), (120, TWO)],
            0,
        ),
        (
            "a second one while the first is held",
            &[(0, ONE), (20, ONE), (30, Many), (60, Many), (70, TWO), (100, TWO)],
            1,
        ),
        (
            "from one to another without a release",
            &[(0, ONE), (20, ONE), (30, TWO), (60, TWO), (90, ONE), (120, ONE)],
            1,
        ),
        (
            "after two, all up, one",
            &[(0, Many), (20, Many), (30, Up), (50, Up), (60, ONE), (80, ONE)],
            1,
        ),
        ("a clock that runs backwards", &[(100, ONE), (50, ONE), (60, ONE)], 0),
    ];
    for (what, steps, digits) in cases {
        let mut entry = entry();
        for (now_ms, pressed) in *steps {
            entry.look(*now_ms, *pressed);
        }
        assert_eq!(entry.len(), *digits, "{what}");
    }
}

#[test]
fn timeout() {
    let mut entry = entry();
    let mut now_ms = 1_000;
    type_keys(&mut entry, &mut now_ms, b"12");
    let typed_ms = entry.typed_ms;
    assert_eq!(entry.look(typed_ms + 4_999, Pressed::None), None);
    assert_eq!(entry.look(typed_ms + 5_000, Pressed::None), Some(Typed::TimedOut));
    assert_eq!(entry.look(typed_ms + 20_000, Pressed::None), None);
    assert!(entry.is_empty());
    now_ms += 20_000;
    type_keys(&mut entry, &mut now_ms, b"1234567890123");
    assert_eq!(entry.look(now_ms + 5_000, Pressed::None), Some(Typed::TimedOut));
    now_ms += 6_000;
    assert_eq!(
        type_keys(&mut entry, &mut now_ms, b"7#"),
        [Typed::Digit(1), entered("7")]
    );
}

/// Keys that connect rows with columns, and currents that take every way.
#[derive(Default)]
struct Board {
    low_rows: BTreeSet<usize>,
    down: BTreeSet<(usize, usize)>,
}

impl Board {
    fn is_low(&self, column: usize) -> bool {
        let (mut rows, mut columns) = (self.low_rows.clone(), BTreeSet::new());
        for _ in 0..8 {
            columns.extend(
                self.down
                    .iter()
                    .filter(|(row, _)| rows.contains(row))
                    .map(|(_, column)| *column),
            );
            rows.extend(
                self.down
                    .iter()
                    .filter(|(_, column)| columns.contains(column))
                    .map(|(row, _)| *row),
            );
        }
        columns.contains(&column)
    }
}

struct Row(Rc<RefCell<Board>>, usize);
struct Column(Rc<RefCell<Board>>, usize);

impl ErrorType for Row {
    type Error = Infallible;
}

impl OutputPin for Row {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().low_rows.insert(self.1);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().low_rows.remove(&self.1);
        Ok(())
    }
}

impl ErrorType for Column {
    type Error = Infallible;
}

impl InputPin for Column {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.borrow().is_low(self.1))
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.borrow().is_low(self.1))
    }
}

type Bench<const COLUMNS: usize> = (Rc<RefCell<Board>>, Keypad<Row, Column, 4, COLUMNS>);

fn keypad<const COLUMNS: usize>(layout: Layout<4, COLUMNS>) -> Bench<COLUMNS> {
    let board = Rc::new(RefCell::new(Board::default()));
    let rows = core::array::from_fn(|i| Row(board.clone(), i));
    let columns = core::array::from_fn(|i| Column(board.clone(), i));
    let keypad = Keypad::new(rows, columns, layout, entry()).unwrap();
    (board, keypad)
}

fn hold<const COLUMNS: usize>(bench: &mut Bench<COLUMNS>, now_ms: &mut u64, down: &[(usize, usize)]) -> Vec<Typed> {
    bench.0.borrow_mut().down = down.iter().copied().collect();
    let mut typed = Vec::new();
    for _ in 0..40 {
        *now_ms += 2;
        typed.extend(bench.1.tick(*now_ms).unwrap());
        assert_eq!(bench.0.borrow().low_rows.len(), 1, "one row is driven");
    }
    typed
}

fn every_key<const COLUMNS: usize>(layout: Layout<4, COLUMNS>) {
    for (row, keys) in layout.iter().enumerate() {
        for (column, key) in keys.iter().enumerate() {
            let (mut bench, mut now_ms) = (keypad(layout), 0);
            // A digit before shows what the keys without digits do.
            hold(&mut bench, &mut now_ms, &[(0, 0)]);
            hold(&mut bench, &mut now_ms, &[]);
            let expected = match key {
                b'0'..=b'9' => [Typed::Digit(2)].to_vec(),
                b'*' => [Typed::Cleared].to_vec(),
                b'#' => [entered("1")].to_vec(),
                _ => Vec::new(),
            };
            assert_eq!(
                hold(&mut bench, &mut now_ms, &[(row, column)]),
                expected,
                "{}",
                char::from(*key)
            );
        }
    }
}

#[test]
fn matrices() {
    every_key(LAYOUT_3X4);
    every_key(LAYOUT_4X4);
}

#[test]
fn ghosts_are_no_keys() {
    for down in [
        &[(0, 0), (1, 1)][..],
        &[(0, 0), (0, 1)],
        &[(0, 0), (1, 0)],
        &[(0, 0), (0, 1), (1, 0)],
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
    ] {
        let (mut bench, mut now_ms) = (keypad(LAYOUT_3X4), 0);
        assert_eq!(hold(&mut bench, &mut now_ms, down), [], "{down:?}");
        assert_eq!(hold(&mut bench, &mut now_ms, &down[..1]), [], "{down:?}");
        assert_eq!(hold(&mut bench, &mut now_ms, &[]), []);
        assert_eq!(hold(&mut bench, &mut now_ms, &down[..1]), [Typed::Digit(1)]);
    }
}

proptest! {
    #![proptest_config(config("keypad", 256))]

    #[test]
    fn what_is_typed_is_entered(digits in "[0-9]{1,12}") {
        let typed = type_keys(&mut entry(), &mut 0, std::format!("{digits}#").as_bytes());
        prop_assert_eq!(typed.last(), Some(&entered(&digits)));
    }

    #[test]
    fn no_keys_panic(looks in prop::collection::vec((any::<u64>(), prop_oneof![Just(Pressed::None), Just(Pressed::Many), any::<u8>().prop_map(Pressed::One), (b'0'..=b'9').prop_map(Pressed::One)]), 0..300)) {
        let mut entry = Entry::new(0, u32::MAX);
        for (now_ms, pressed) in looks {
            entry.look(now_ms, pressed);
            prop_assert!(entry.len() <= DIGITS_MAX);
        }
    }
}
