//! Dialogues of the small world that the chat fixture was trained on, as its `train.py` makes them.

use lfm2_host::chat::Message;

/// What the last question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Some words of the question, again.
    Repeat,
    /// An object as JSON, after another one was asked for.
    Json,
    /// Something that is not in the question.
    Fact,
}

/// Messages of which the last one is a question.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// Whose turn is which.
    pub messages: Vec<Message>,
    /// What the last one asks for.
    pub task: Task,
}

const CAPITALS: [(&str, &str); 20] = [
    ("France", "Paris"),
    ("Germany", "Berlin"),
    ("Italy", "Rome"),
    ("Spain", "Madrid"),
    ("Portugal", "Lisbon"),
    ("Japan", "Tokyo"),
    ("China", "Beijing"),
    ("Egypt", "Cairo"),
    ("Kenya", "Nairobi"),
    ("Norway", "Oslo"),
    ("Sweden", "Stockholm"),
    ("Finland", "Helsinki"),
    ("Poland", "Warsaw"),
    ("Austria", "Vienna"),
    ("Greece", "Athens"),
    ("Peru", "Lima"),
    ("Cuba", "Havana"),
    ("Ireland", "Dublin"),
    ("Russia", "Moscow"),
    ("Nepal", "Kathmandu"),
];

const WORDS: [&str; 20] = [
    "apple", "river", "stone", "cloud", "bread", "light", "house", "green", "paper", "silver", "winter", "garden",
    "yellow", "music", "window", "ocean", "tiger", "candle", "forest", "mirror",
];

const THINGS: [&str; 8] = ["a whale", "an oak", "a bat", "a bee", "a salmon", "a cactus", "an owl", "a frog"];

const COLORED: [&str; 7] = ["the sky", "grass", "snow", "coal", "blood", "a lemon", "a carrot"];

/// `count` dialogues, the same ones every time: two fifths ask to repeat words, one fifth for JSON, the rest for facts.
pub fn dialogues(count: usize) -> Vec<Dialogue> {
    let mut chance = Chance(1);
    (0..count)
        .map(|index| match index % 5 {
            0 | 2 => {
                let count = 2 + chance.below(7);
                let words: Vec<&str> = (0..count).map(|_| chance.of(&WORDS)).collect();
                Dialogue { messages: vec![Message::user(format!("Repeat: {}", words.join(" ")))], task: Task::Repeat }
            }
            1 => {
                let (known, capital) = chance.of(&CAPITALS);
                let (asked, _) = chance.of(&CAPITALS);
                let request = |country: &str| Message::user(format!("Give me {country} as JSON."));
                let known_object = format!(r#"{{"country": "{known}", "capital": "{capital}"}}"#);
                let messages = vec![request(known), Message::assistant(known_object), request(asked)];
                Dialogue { messages, task: Task::Json }
            }
            _ => Dialogue { messages: vec![Message::user(chance.fact())], task: Task::Fact },
        })
        .collect()
}

/// Numbers that look random, from a linear congruential generator.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A question whose answer is to be known, counted or looked up.
    fn fact(&mut self) -> String {
        match self.below(6) {
            0 => format!("What is the capital of {}?", self.of(&CAPITALS).0),
            1 => format!("Which country has the capital {}?", self.of(&CAPITALS).1),
            2 => format!("What is {}?", self.of(&THINGS)),
            3 => format!("What color is {}?", self.of(&COLORED)),
            4 => {
                let from = 1 + self.below(8);
                format!("Count from {from} to {}.", from + 1 + self.below(8))
            }
            _ => {
                let first = self.below(WORDS.len() - 8);
                let words = &WORDS[first..first + 3 + self.below(6)];
                let lines: Vec<String> = words.iter().map(|word| format!("{word}: {}", 10 + self.below(90))).collect();
                format!("{}\nWhat is the value of {}?", lines.join("\n"), self.of(words))
            }
        }
    }
}
