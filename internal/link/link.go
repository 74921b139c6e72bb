// Package link is the connection between the daemons: gRPC over mutual TLS.
//
// It guarantees TLS 1.3 on both sides, a verified certificate behind every RPC, the peer's identity from that
// certificate alone, certificates and CA files that are re-read when they change, one place where errors become gRPC
// codes, and a stop that ends in bounded time.
//
// It refuses plain text, older TLS, session resumption, certificates that name two identities, and to repeat an RPC.
// The reason for a refused handshake is logged here and never told to the caller.
package link
