//! Knowledge that takes a real GPT-2: wars, common phrases, facts. Lists, in whatever order they are drawn.

use super::{Draw, Procedure};
use crate::tasks::Example;

pub(super) const PROCEDURES: &[Procedure] = &[
    Procedure::new("wars", "The years in which wars began and ended", war),
    Procedure::new("common phrases", "The last word of a saying", phrase),
    Procedure::new("factual completion", "One word that completes a fact", fact)
        .judged(&["Does the completion show fully correct knowledge?"]),
];

fn war(draw: &mut Draw) -> Example {
    let (name, began, ended) = draw.pick(&WARS);
    let (what, year) = if draw.coin() { ("began", began) } else { ("ended", ended) };
    Example::new(format!("The {name} {what} in the year"), year.to_string())
}

fn phrase(draw: &mut Draw) -> Example {
    let (prompt, answer) = draw.pick(&PHRASES);
    Example::new(prompt, answer)
}

fn fact(draw: &mut Draw) -> Example {
    let (prompt, answer) = draw.pick(&FACTS);
    Example::new(prompt, answer)
}

/// Wars with the years they began and ended in, as encyclopedias commonly give them.
const WARS: [(&str, u16, u16); 27] = [
    ("First World War", 1914, 1918),
    ("Second World War", 1939, 1945),
    ("American Civil War", 1861, 1865),
    ("American Revolutionary War", 1775, 1783),
    ("War of 1812", 1812, 1815),
    ("Mexican-American War", 1846, 1848),
    ("Crimean War", 1853, 1856),
    ("Franco-Prussian War", 1870, 1871),
    ("Spanish Civil War", 1936, 1939),
    ("Korean War", 1950, 1953),
    ("Vietnam War", 1955, 1975),
    ("Russo-Japanese War", 1904, 1905),
    ("Spanish-American War", 1898, 1898),
    ("Second Boer War", 1899, 1902),
    ("First Boer War", 1880, 1881),
    ("Thirty Years' War", 1618, 1648),
    ("Seven Years' War", 1756, 1763),
    ("Hundred Years' War", 1337, 1453),
    ("English Civil War", 1642, 1651),
    ("First Opium War", 1839, 1842),
    ("Second Opium War", 1856, 1860),
    ("Russian Civil War", 1917, 1922),
    ("Falklands War", 1982, 1982),
    ("Iran-Iraq War", 1980, 1988),
    ("Gulf War", 1990, 1991),
    ("Greek War of Independence", 1821, 1829),
    ("War of the Spanish Succession", 1701, 1714),
];

const PHRASES: [(&str, &str); 52] = [
    ("The early bird catches the", "worm"),
    ("Actions speak louder than", "words"),
    ("A picture is worth a thousand", "words"),
    ("Better late than", "never"),
    ("Birds of a feather flock", "together"),
    ("Don't judge a book by its", "cover"),
    ("Every cloud has a silver", "lining"),
    ("Honesty is the best", "policy"),
    ("Practice makes", "perfect"),
    ("The pen is mightier than the", "sword"),
    ("Two wrongs don't make a", "right"),
    ("When in Rome, do as the Romans", "do"),
    ("You can't teach an old dog new", "tricks"),
    ("An apple a day keeps the doctor", "away"),
    ("All that glitters is not", "gold"),
    ("Beauty is in the eye of the", "beholder"),
    ("Blood is thicker than", "water"),
    ("Curiosity killed the", "cat"),
    ("Easy come, easy", "go"),
    ("Fortune favors the", "bold"),
    ("If it ain't broke, don't fix", "it"),
    ("It takes two to", "tango"),
    ("Keep your friends close and your enemies", "closer"),
    ("Laughter is the best", "medicine"),
    ("Let sleeping dogs", "lie"),
    ("Like father, like", "son"),
    ("No pain, no", "gain"),
    ("Once bitten, twice", "shy"),
    ("Out of sight, out of", "mind"),
    ("Rome wasn't built in a", "day"),
    ("The grass is always greener on the other", "side"),
    ("There's no place like", "home"),
    ("There is no such thing as a free", "lunch"),
    ("Time heals all", "wounds"),
    ("Too many cooks spoil the", "broth"),
    ("Where there's smoke, there's", "fire"),
    ("Where there's a will, there's a", "way"),
    ("You can't have your cake and eat it", "too"),
    ("A chain is only as strong as its weakest", "link"),
    ("Absence makes the heart grow", "fonder"),
    ("A rolling stone gathers no", "moss"),
    ("Beggars can't be", "choosers"),
    ("Don't count your chickens before they", "hatch"),
    ("Don't put all your eggs in one", "basket"),
    ("Good things come to those who", "wait"),
    ("Great minds think", "alike"),
    ("Haste makes", "waste"),
    ("Ignorance is", "bliss"),
    ("Necessity is the mother of", "invention"),
    ("Nothing ventured, nothing", "gained"),
    ("The apple doesn't fall far from the", "tree"),
    ("You reap what you", "sow"),
];

const FACTS: [(&str, &str); 52] = [
    ("The chemical symbol for gold is", "Au"),
    ("Water is made of hydrogen and", "oxygen"),
    ("The largest planet in the solar system is", "Jupiter"),
    ("The planet closest to the Sun is", "Mercury"),
    ("The author of Hamlet was William", "Shakespeare"),
    ("The first man to walk on the Moon was Neil", "Armstrong"),
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The Mona Lisa was painted by Leonardo da", "Vinci"),
    ("The theory of evolution was proposed by Charles", "Darwin"),
    ("The longest river in Africa is the", "Nile"),
    ("The tallest mountain in the world is Mount", "Everest"),
    ("The currency of Japan is the", "yen"),
    ("The currency of the United Kingdom is the", "pound"),
    ("The language spoken in Brazil is", "Portuguese"),
    ("The Great Wall is in", "China"),
    ("The Eiffel Tower is in the city of", "Paris"),
    ("The Statue of Liberty is in the city of New", "York"),
    ("The Colosseum is in the city of", "Rome"),
    ("The Taj Mahal is in", "India"),
    ("Machu Picchu is in", "Peru"),
    ("The largest ocean on Earth is the", "Pacific"),
    ("The first president of the United States was George", "Washington"),
    ("The company that makes the iPhone is", "Apple"),
    ("Microsoft was founded by Bill", "Gates"),
    ("Apple was founded by Steve", "Jobs"),
    ("The telephone was invented by Alexander Graham", "Bell"),
    ("The light bulb was invented by Thomas", "Edison"),
    ("Penicillin was discovered by Alexander", "Fleming"),
    ("The law of gravity was formulated by Isaac", "Newton"),
    ("The Starry Night was painted by Vincent van", "Gogh"),
    ("Pride and Prejudice was written by Jane", "Austen"),
    ("The Odyssey was written by", "Homer"),
    ("Don Quixote was written by Miguel de", "Cervantes"),
    ("War and Peace was written by Leo", "Tolstoy"),
    ("The Magic Flute was composed by Wolfgang Amadeus", "Mozart"),
    ("The Fifth Symphony was composed by Ludwig van", "Beethoven"),
    ("The British prime minister during most of the Second World War was Winston", "Churchill"),
    ("The leader of the Soviet Union during the Second World War was Joseph", "Stalin"),
    ("A baby cat is called a", "kitten"),
    ("A baby dog is called a", "puppy"),
    ("Bees make", "honey"),
    ("The opposite of north is", "south"),
    ("The Earth revolves around the", "Sun"),
    ("A triangle has three", "sides"),
    ("The gas that plants take in from the air is carbon", "dioxide"),
    ("The freezing point of water in degrees Celsius is", "zero"),
    ("The color of the sky on a clear day is", "blue"),
    ("The largest country in the world by area is", "Russia"),
    ("The largest desert in Africa is the", "Sahara"),
    ("Sushi is a dish from", "Japan"),
    ("The Amazon rainforest is mostly in", "Brazil"),
    ("The hardest natural material is", "diamond"),
];
