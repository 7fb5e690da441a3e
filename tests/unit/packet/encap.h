/* SPDX-License-Identifier: Apache-2.0 */
/* Encapsulations put around the frames of frames.h, each with all its optional parts at random. */
#ifndef PICKET_TESTS_PACKET_ENCAP_H
#define PICKET_TESTS_PACKET_ENCAP_H

#include "frames.h"

#define ENCAPS(X)              \
    X(VLAN3, "3 VLANs")        \
    X(VNTAG, "VN-Tag")         \
    X(PBB, "802.1ah")          \
    X(FABRIC, "FabricPath")    \
    X(MPLS, "MPLS")            \
    X(MPLS_ETH, "MPLS PW")     \
    X(MPLS_CW, "MPLS PW+CW")   \
    X(PPPOE, "PPPoE")          \
    X(IPIP, "IP in IP")        \
    X(AH, "AH")                \
    X(GRE, "GRE")              \
    X(GRE_ETH, "GRE TEB")      \
    X(GRE_MPLS, "GRE MPLS")    \
    X(PPTP, "PPTP")            \
    X(ERSPAN1, "ERSPAN I")     \
    X(ERSPAN2, "ERSPAN II")    \
    X(ERSPAN3, "ERSPAN III")   \
    X(VXLAN, "VXLAN")          \
    X(VXLAN_GPE, "VXLAN-GPE")  \
    X(GENEVE, "GENEVE")        \
    X(GTP, "GTP-U")            \
    X(TEREDO, "Teredo")        \
    X(ETHERIP, "EtherIP")      \
    X(MPLS_UDP, "MPLS in UDP") \
    X(GRE_UDP, "GRE in UDP")   \
    X(AYIYA, "AYIYA")

enum encap {
#define ENCAP_ENUM(id, name) ENCAP_##id,
    ENCAPS(ENCAP_ENUM)
#undef ENCAP_ENUM
        ENCAP_COUNT
};
const char *encap_name(enum encap kind);
/* Has it addresses of its own, so that it may be cut into fragments? */
bool encap_is_tunnel(enum encap kind);

/* What numbers a tunnel has; numbers of the same tunnel, so that a GRE key and an ERSPAN session
 * may come together. */
struct encap_numbers {
    bool has_vni, has_gre_key, has_session;
    uint32_t vni;
    uint32_t gre_key;
    uint16_t session;
};
#define ENCAP_NUMBERS 8u /* where they are asked for, they are below this */

/* Ends and datagram of a tunnel; frames_flow_random() may fill ends. */
struct encap_outer {
    struct frames_flow ends;
    uint32_t id;
    uint8_t fragment;              /* 0 = whole, 1 = a first fragment */
    struct encap_numbers *numbers; /* may be NULL; set where the encapsulation has any */
};

#define ENCAP_ROOM (FRAMES_ROOM + 2048)

/* Puts kind around a frame of frames_make() or of this function. Returns the new frame's length, or
 * 0 where it does not fit: PPPoE, IP in IP and the like take IP only, Teredo IPv6 only. */
size_t encap_wrap(struct frames_rng *rng, enum encap kind, const struct encap_outer *outer,
                  const uint8_t *frame, size_t len, uint8_t out[ENCAP_ROOM]);
/* A later fragment of the tunnel's datagram that has first as its first one. */
size_t encap_later(struct frames_rng *rng, const struct encap_outer *outer, const uint8_t *first,
                   uint8_t out[ENCAP_ROOM]);

/* A packet of a random flow in up to three encapsulations, three of four of them bent by
 * frames_mutate(); returns its length. */
size_t encap_any(struct frames_rng *rng, uint8_t out[ENCAP_ROOM]);

#endif
