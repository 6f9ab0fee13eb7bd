package kv

// BeatPrefix begins the keys of beats: records that a replica writes into a
// bucket only to see them come back in its own watch. They say nothing about
// anything, nor do turns, which stand among them; whoever accounts for changes leaves both out.
const BeatPrefix = "_beat."
