/* SPDX-License-Identifier: Apache-2.0 */
/* What tools ask the agent for: the bodies of POST and DELETE .../shunts. What is read is within
 * its limits, and the flows of it can be keys or are left out; what is refused says why. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fuzz.h"
#include "node/shunt.h"

static void check_flows(const struct pk_shunt_order *order)
{
    for (size_t i = 0; i < order->flow_count; i++) {
        struct pk_shunt_key key;
        struct pk_shunt shunt = { 0 };
        struct pk_tuple tuple;
        bool from_b = false;
        const struct pk_tuple *flow = &order->flows[i];
        FUZZ_CHECK(pk_shunt_key_of(flow, 63, &key, &from_b));
        FUZZ_CHECK(key.group == 63);
        shunt.from_b = from_b;
        pk_shunt_tuple(&key, &shunt, &tuple);
        size_t len = flow->family == 4 ? 4 : 16;
        FUZZ_CHECK(tuple.family == flow->family && tuple.proto == flow->proto);
        FUZZ_CHECK(tuple.src_port == flow->src_port && tuple.dst_port == flow->dst_port);
        FUZZ_CHECK(memcmp(tuple.src, flow->src, len) == 0);
        FUZZ_CHECK(memcmp(tuple.dst, flow->dst, len) == 0);
    }
}

/* Both texts of an entry that the order makes: JSON, whatever "by" says. */
static void check_texts(const struct pk_shunt_order *order)
{
    struct pk_shunt_key key;
    struct pk_shunt shunt = { .reason = PK_SHUNT_REQUEST, .state = PK_SHUNT_REMOVED };
    bool from_b = false;
    if (order->flow_count == 0 || !pk_shunt_key_of(&order->flows[0], 0, &key, &from_b))
        return;
    memcpy(shunt.by, order->by, sizeof shunt.by);
    for (unsigned record = 0; record < 2; record++) {
        struct pk_buf text = PK_BUF_INIT(8192);
        struct pk_error err = { 0 };
        json_t *json = NULL;
        uint64_t id = 0;
        if (record != 0)
            pk_shunt_record(&text, &key, &shunt, 0);
        else
            pk_shunt_print(&text, &key, &shunt, "group", 0);
        FUZZ_CHECK(!text.failed && text.len <= 4096);
        FUZZ_CHECK(pk_json_parse("text", text.data, text.len, &json, &err) == 0);
        if (record != 0)
            FUZZ_CHECK(pk_shunt_record_find_id(text.data, text.len, &id) &&
                       id == pk_shunt_record_id(&key, &shunt));
        json_decref(json);
        pk_buf_done(&text);
    }
}

static void check_good(const struct pk_shunt_order *order, bool is_delete)
{
    FUZZ_CHECK(order->flow_count <= PK_SHUNT_FLOWS_AT_ONCE);
    FUZZ_CHECK(order->flow_count > 0 || (is_delete && order->all));
    FUZZ_CHECK(memchr(order->by, '\0', sizeof order->by) != NULL);
    if (!is_delete) {
        FUZZ_CHECK(order->idle_s >= 1 && order->idle_s <= PK_SHUNT_IDLE_MAX_S);
        FUZZ_CHECK(order->life_s >= 1 && order->life_s <= PK_SHUNT_LIFE_MAX_S);
    }
    check_flows(order);
    check_texts(order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *body = NULL;
    if (pk_json_parse("input", (const char *)data, size, &body, NULL) < 0)
        return 0;
    for (unsigned is_delete = 0; is_delete < 2; is_delete++) {
        struct pk_shunt_order order = { 0 };
        struct pk_error err = { 0 };
        int r = pk_shunt_order_parse(body, is_delete != 0, &order, &err);
        FUZZ_CHECK((r < 0) == (err.msg[0] != '\0'));
        FUZZ_CHECK(r == 0 || (order.flows == NULL && err.hint[0] != '\0'));
        if (r == 0)
            check_good(&order, is_delete != 0);
        pk_shunt_order_done(&order);

        order = (struct pk_shunt_order){ 0 };
        pk_alloc_fail_nth(size % 8 + 1);
        r = pk_shunt_order_parse(body, is_delete != 0, &order, NULL);
        pk_alloc_fail_nth(0);
        if (r == 0)
            pk_shunt_order_done(&order);
    }
    json_decref(body);
    return 0;
}
