//! The words of the embedded model's corpus, as `models/mini/recipe/corpus.py` has them.

pub(super) const FEMALE: [&str; 20] = [
    "Mary", "Anna", "Emma", "Lucy", "Sarah", "Alice", "Julia", "Laura", "Nina", "Clara", "Rosa", "Helen", "Ruth",
    "Kate", "Jane", "Eva", "Olivia", "Grace", "Amy", "Susan",
];

pub(super) const MALE: [&str; 20] = [
    "John", "James", "Alan", "Peter", "Tom", "David", "Paul", "Mark", "Simon", "Adam", "Henry", "Jack", "Oscar",
    "Victor", "Daniel", "Robert", "George", "Frank", "Leo", "Max",
];

/// City, country, latitude and longitude in degrees.
pub(super) type Capital = (&'static str, &'static str, f64, f64);

pub(super) const CAPITALS: [Capital; 30] = [
    ("Paris", "France", 48.86, 2.35),
    ("Rome", "Italy", 41.90, 12.50),
    ("Madrid", "Spain", 40.42, -3.70),
    ("Berlin", "Germany", 52.52, 13.40),
    ("London", "England", 51.51, -0.13),
    ("Vienna", "Austria", 48.21, 16.37),
    ("Lisbon", "Portugal", 38.72, -9.14),
    ("Athens", "Greece", 37.98, 23.73),
    ("Warsaw", "Poland", 52.23, 21.01),
    ("Prague", "Czechia", 50.08, 14.44),
    ("Dublin", "Ireland", 53.35, -6.26),
    ("Oslo", "Norway", 59.91, 10.75),
    ("Stockholm", "Sweden", 59.33, 18.07),
    ("Helsinki", "Finland", 60.17, 24.94),
    ("Copenhagen", "Denmark", 55.68, 12.57),
    ("Brussels", "Belgium", 50.85, 4.35),
    ("Amsterdam", "Holland", 52.37, 4.90),
    ("Bern", "Switzerland", 46.95, 7.45),
    ("Budapest", "Hungary", 47.50, 19.04),
    ("Moscow", "Russia", 55.76, 37.62),
    ("Tokyo", "Japan", 35.68, 139.69),
    ("Beijing", "China", 39.90, 116.41),
    ("Delhi", "India", 28.61, 77.21),
    ("Cairo", "Egypt", 30.04, 31.24),
    ("Ottawa", "Canada", 45.42, -75.70),
    ("Washington", "America", 38.91, -77.04),
    ("Canberra", "Australia", -35.28, 149.13),
    ("Lima", "Peru", -12.05, -77.04),
    ("Havana", "Cuba", 23.11, -82.37),
    ("Nairobi", "Kenya", -1.29, 36.82),
];

pub(super) const ELECTED: [(&str, usize); 12] = [
    ("Lincoln", 1860),
    ("Grant", 1868),
    ("Wilson", 1912),
    ("Hoover", 1928),
    ("Roosevelt", 1932),
    ("Truman", 1948),
    ("Kennedy", 1960),
    ("Nixon", 1968),
    ("Carter", 1976),
    ("Reagan", 1980),
    ("Clinton", 1992),
    ("Obama", 2008),
];

pub(super) const DEFINITIONS: [(&str, &str); 20] = [
    ("apple", "a fruit with red, green or yellow skin"),
    ("computer", "a machine that stores and processes data"),
    ("ocean", "a large body of salt water"),
    ("gravity", "a force that pulls things toward the ground"),
    ("molecule", "a group of atoms held together"),
    ("winter", "the coldest season of the year"),
    ("summer", "the warmest season of the year"),
    ("doctor", "a person who treats the sick"),
    ("teacher", "a person who helps others learn"),
    ("library", "a place where books are kept"),
    ("river", "water that flows to the sea"),
    ("desert", "a dry land with little rain"),
    ("island", "land with water on all sides"),
    ("museum", "a place where old things are shown"),
    ("bridge", "a road built over water"),
    ("kitchen", "a room where food is cooked"),
    ("hammer", "a tool used to hit nails"),
    ("engine", "a machine that makes things move"),
    ("planet", "a large body that moves around a star"),
    ("candle", "a stick of wax that gives light"),
];

pub(super) const ANTONYMS: [(&str, &str); 18] = [
    ("hot", "cold"),
    ("big", "small"),
    ("up", "down"),
    ("fast", "slow"),
    ("old", "new"),
    ("good", "bad"),
    ("dark", "light"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("full", "empty"),
    ("open", "closed"),
    ("rich", "poor"),
    ("early", "late"),
    ("near", "far"),
    ("high", "low"),
    ("long", "short"),
    ("strong", "weak"),
    ("loud", "quiet"),
];

/// English and French.
pub(super) const FRENCH: [(&str, &str); 18] = [
    ("house", "maison"),
    ("dog", "chien"),
    ("cat", "chat"),
    ("water", "eau"),
    ("bread", "pain"),
    ("book", "livre"),
    ("red", "rouge"),
    ("green", "vert"),
    ("sun", "soleil"),
    ("moon", "lune"),
    ("night", "nuit"),
    ("day", "jour"),
    ("tree", "arbre"),
    ("milk", "lait"),
    ("hand", "main"),
    ("door", "porte"),
    ("friend", "ami"),
    ("king", "roi"),
];

pub(super) const SEQUENCES: [&[&str]; 5] = [
    &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    &[
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    &["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
    &[
        "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V",
        "W", "X", "Y", "Z",
    ],
    &["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"],
];

pub(super) const SKILLS: [&str; 10] =
    ["Python", "git", "MS Office", "Communication", "Rust", "SQL", "Music", "Design", "Sales", "Law"];

pub(super) const PLACES: [&str; 10] =
    ["store", "park", "school", "garden", "station", "office", "market", "beach", "library", "museum"];

pub(super) const THINGS: [&str; 10] =
    ["drink", "book", "ring", "ball", "lamp", "letter", "basket", "flower", "ticket", "bottle"];

/// Their plurals end in s.
pub(super) const SINGULAR: [&str; 10] =
    ["key", "dog", "boy", "cat", "girl", "bird", "king", "friend", "student", "doctor"];

pub(super) const NOUNS: [&str; 20] = [
    "fox", "lamp", "tree", "stone", "boat", "chair", "cloud", "glass", "horse", "paper", "wheel", "coat", "door",
    "leaf", "nail", "rope", "seed", "tent", "vase", "yard",
];

pub(super) const EVENTS: [&str; 10] =
    ["war", "trip", "project", "storm", "journey", "drought", "strike", "voyage", "contract", "concert"];
