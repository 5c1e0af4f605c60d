// Package rules decides. It holds rule packages, the settings of [waptwua],
// and one pure function of both: may this update be installed on this host,
// and which line says so? The node and the agent call the same function, so
// the preview, the page that says why, and the host agree by construction.
//
// Deciding, the first match wins:
//
//  1. a line that forbids the update, by UpdateID, then KB, product,
//     classification, severity;
//  2. superseded, unless include_potentially_superseded_updates is on;
//  3. a line that allows it, in the same order;
//  4. the host's allowed_severities;
//  5. its default_allow.
//
// What is allowed and younger than install_delay is delayed. Packages merge
// by union: neither their order nor that of their lines means anything. Where
// two packages hold the deciding line, the first name in the alphabet is told.
package rules
