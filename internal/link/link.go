// Package link is the serving end of the connection between the daemons: gRPC over mutual TLS. The dialling end is
// package client.
//
// It guarantees TLS 1.3, a verified certificate behind every RPC, the peer's identity from that certificate alone,
// certificates and CA files that are re-read when they change, one place where errors become gRPC codes, and a stop that
// ends in bounded time.
//
// It refuses plain text, older TLS, session resumption, and certificates that name two identities. The reason for a
// refused handshake is logged here and never told to the caller.
package link
