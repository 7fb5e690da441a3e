/* SPDX-License-Identifier: Apache-2.0 */
/* Drivers' counters of lost packets: which count, and none twice. */
#include "pk_test.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/json.h"
#include "node/internal.h"
#include "node/loss.h"

static json_int_t lost(const json_t *loss, const char *cause)
{
    const json_t *packets = json_object_get(json_object_get(loss, "lost"), cause);
    return packets != NULL ? json_integer_value(packets) : -1;
}

#define SUM(driver, ...)                                                   \
    pk_loss_sum((driver), (const struct pk_loss_counter[]){ __VA_ARGS__ }, \
                sizeof((const struct pk_loss_counter[]){ __VA_ARGS__ }) /  \
                    sizeof(struct pk_loss_counter))

static void test_repeated_numbers_count_once(void **state)
{
    (void)state;
    PK_JSON loss =
        SUM("ixgbe", { "rtnl:rx_missed_errors", 70 }, { "rx_missed_errors", 70 },
            { "rtnl:rx_fifo_errors", 70 }, { "rx_no_dma_resources", 50 }, { "rx_packets", 100000 },
            { "rx_crc_errors", 9 }, { "rtnl:rx_crc_errors", 9 });
    assert_int_equal(lost(loss, "ring"), 70);
    assert_int_equal(lost(loss, "damaged"), 9);
    assert_int_equal(lost(loss, "length"), 0); /* it can tell, and there was none */
    assert_int_equal(lost(loss, "port"), -1);  /* it cannot tell */
    const json_t *names = json_object_get(loss, "names");
    assert_int_equal(json_integer_value(json_object_get(names, "rx_no_dma_resources")), 50);
    assert_null(json_object_get(names, "rx_packets"));
}

static void test_mlx5(void **state)
{
    (void)state;
    PK_JSON loss =
        SUM("mlx5_core", { "rtnl:rx_missed_errors", 5 }, { "rx_out_of_buffer", 6 },
            { "rx_discards_phy", 11 }, { "rx_crc_errors_phy", 2 }, { "rx_xdp_drop", 1000 });
    assert_int_equal(lost(loss, "ring"), 6);
    assert_int_equal(lost(loss, "port"), 11);
    assert_int_equal(lost(loss, "damaged"), 2);
}

/* The queues of one counter add up; what XDP dropped is taken off. */
static void test_virtio(void **state)
{
    (void)state;
    PK_JSON loss = SUM("virtio_net", { "rx0_drops", 110 }, { "rx0_xdp_drops", 100 },
                       { "rx1_drops", 23 }, { "rx1_xdp_drops", 20 }, { "rtnl:rx_dropped", 133 });
    assert_int_equal(lost(loss, "driver"), 13);
}

static void test_veth(void **state)
{
    (void)state;
    PK_JSON loss = SUM("veth", { "rtnl:rx_dropped", 50 }, { "rx_queue_0_xdp_drops", 40 },
                       { "rx_queue_0_drops", 50 }, { "peer:tx_dropped", 7 });
    assert_int_equal(lost(loss, "sender"), 7);
    assert_int_equal(lost(loss, "driver"), -1);
    assert_int_equal(lost(loss, "ring"), 0);
}

static void test_queues_in_brackets(void **state)
{
    (void)state;
    PK_JSON loss = SUM("bnxt_en", { "[0]: rx_discards", 4 }, { "[11]: rx_discards", 5 },
                       { "[0]: rx_ucast_packets", 100 });
    assert_int_equal(lost(loss, "ring"), 9);
}

/* More than a signed number holds does not become less than nothing. */
static void test_huge(void **state)
{
    (void)state;
    PK_JSON loss = SUM("x", { "rtnl:rx_missed_errors", UINT64_MAX });
    assert_true(lost(loss, "ring") == INT64_MAX);
}

static void test_real_interface(void **state)
{
    (void)state;
    struct nl_sock *nl = NULL;
    assert_int_equal(pk_nl_open(&nl, NULL), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    PK_JSON loss = NULL;
    assert_int_equal(pk_loss_read(nl, fd, "lo", &loss, NULL), 0);
    assert_true(lost(loss, "ring") >= 0);
    assert_int_equal(json_integer_value(json_object_get(loss, "began")), 1);
    json_t *none = NULL;
    assert_int_equal(pk_loss_read(nl, fd, "nosuchlink", &none, NULL), PK_E_NOTFOUND);
    assert_null(none);
    (void)close(fd);
    pk_nl_close(nl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeated_numbers_count_once),
        cmocka_unit_test(test_mlx5),
        cmocka_unit_test(test_virtio),
        cmocka_unit_test(test_veth),
        cmocka_unit_test(test_queues_in_brackets),
        cmocka_unit_test(test_huge),
        cmocka_unit_test(test_real_interface),
    };
    return cmocka_run_group_tests_name("node/loss", tests, NULL, NULL);
}
