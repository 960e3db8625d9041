<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP_Config;
use WC_Order;
use WC_Order_Item_Product;
use WC_Order_Refund;

/**
 * Reads orders through WooCommerce's CRUD API only, independent of how they are stored.
 */
final class OrderReader
{
    public const SOURCE = 'plugin';

    /** Data about the buyer's session, stored with the order when it is placed. */
    private const SESSION = '_pmp_visit';

    /** WooCommerce's own statuses, which the mesh supports. */
    private const KNOWN_STATUSES = ['pending', 'on-hold', 'processing', 'completed', 'cancelled', 'refunded', 'failed'];

    public function __construct(
        private readonly PMP_Config $config,
        private readonly ProductType $product_type,
        private readonly Courses $courses,
    ) {
    }

    /**
     * Sets the session's data on the order, without saving it. Without consent, that is at most that the buyer's data must not be
     * shared: the block checkout's draft may have more, from before consent was withdrawn.
     */
    public function remember(WC_Order $order, Visitor $visitor): void
    {
        $session = Consent::is_given($visitor) ? [
            'session_id' => $visitor->session_id(),
            'utm_parameters' => $visitor->utm(),
            'marks' => $visitor->marks() + $visitor->refusal(),
        ] : array_filter(['marks' => $visitor->refusal()]);
        if ($session === []) {
            $order->delete_meta_data(self::SESSION);
        } else {
            $order->update_meta_data(self::SESSION, $session);
        }
    }

    /**
     * The session's data on the order; empty without consent.
     *
     * @return array<mixed>
     */
    public function session(WC_Order $order): array
    {
        return array_filter((array) $order->get_meta(self::SESSION));
    }

    /**
     * @return bool True if there was any.
     */
    public function forget_session(WC_Order $order): bool
    {
        if ($this->session($order) === []) {
            return false;
        }
        $order->delete_meta_data(self::SESSION);
        $order->save_meta_data();
        return true;
    }

    /**
     * Metadata that is copied from an order or subscription to another one, without this plugin's: a renewal has no session, and
     * is not a sale of the first order's campaign.
     *
     * @param array<string, mixed> $metadata
     * @return array<string, mixed>
     */
    public function without_ours(array $metadata): array
    {
        return array_diff_key($metadata, [self::SESSION => true, Reported::META => true]);
    }

    /**
     * Facts for PurchasePayload::of().
     *
     * @param string $reason trashed or deleted; empty for an existing order.
     * @return array<string, mixed>
     */
    public function purchase(WC_Order $order, string $reason = ''): array
    {
        $facts = $this->money($order, $reason) + [
            'lines' => $this->lines($order),
            'discount_total' => $order->get_total_discount(),
            'tax_total' => $order->get_total_tax(),
            'shipping_total' => $order->get_shipping_total(),
            'coupon_codes' => $order->get_coupon_codes(),
            'is_test' => $this->is_test($order),
            'source' => self::SOURCE,
        ];
        // The amount counts without a buyer. WooCommerce replaces an anonymised buyer's address with a made-up one.
        return $this->is_anonymized($order) ? $facts : $facts + $this->buyer($order);
    }

    /**
     * The facts of purchase() that decide what the order amounts to.
     *
     * @return array<string, mixed>
     */
    public function money(WC_Order $order, string $reason = ''): array
    {
        return [
            'timestamp' => $order->get_date_created(),
            'order_id' => (string) $order->get_id(),
            'amount' => $order->get_total(),
            'currency' => $order->get_currency(),
            'payment_method' => $order->get_payment_method(),
            'payment_status' => $reason === '' ? $this->status($order) : 'cancelled',
            'reason' => $reason,
            'paid_at' => $order->get_date_paid(),
            'refunded_total' => $this->refunded_total($order),
        ];
    }

    /**
     * Facts for PurchasePayload::refund().
     *
     * @return array<string, mixed>
     */
    public function refund(WC_Order $order, WC_Order_Refund $refund): array
    {
        return [
            'reference' => (string) $refund->get_id(),
            'amount' => abs((float) $refund->get_amount()),
            'refunded_total' => $this->refunded_total($order),
            'timestamp' => $refund->get_date_created(),
            'reason' => $this->is_anonymized($order) ? '' : $refund->get_reason(),
            'source' => self::SOURCE,
            'lines' => $this->returned_lines($refund),
        ];
    }

    /**
     * Read from the database: WooCommerce's own getters are cached and still return deleted refunds.
     *
     * @return list<WC_Order_Refund> Newest first.
     */
    public function refunds(WC_Order $order): array
    {
        $refunds = wc_get_orders(['type' => 'shop_order_refund', 'parent' => $order->get_id(), 'limit' => -1]);
        return array_values(array_filter($refunds, static fn (mixed $refund): bool => $refund instanceof WC_Order_Refund));
    }

    public function refunded_total(WC_Order $order): float
    {
        $amounts = array_map(static fn (WC_Order_Refund $refund): float => abs((float) $refund->get_amount()), $this->refunds($order));
        return (float) array_sum($amounts);
    }

    private function is_anonymized(WC_Order $order): bool
    {
        return $order->get_meta('_anonymized') === 'yes';
    }

    /**
     * @return array<string, mixed>
     */
    private function buyer(WC_Order $order): array
    {
        $is_renewal = $order->get_meta('_subscription_renewal') !== '';
        $session = $is_renewal ? [] : $this->session($order);
        $user_id = $order->get_customer_id();
        $marks = (array) ($session['marks'] ?? []);
        return [
            'user_id' => $user_id > 0 ? (string) $user_id : '',
            'billing_address' => $order->get_address('billing'),
            'country' => $order->get_billing_country(),
            'utm_parameters' => $session['utm_parameters'] ?? [],
            'referral_code' => $marks['ref'] ?? '',
            'metadata' => $this->metadata($order, array_diff_key($marks, ['ref' => true]), $is_renewal),
            'email' => $order->get_billing_email(),
            'session_id' => $session['session_id'] ?? '',
            'is_staff' => $this->is_staff($order),
        ];
    }

    /**
     * A custom status counts as paid if WooCommerce considers it paid.
     */
    private function status(WC_Order $order): string
    {
        $status = $order->get_status();
        if (in_array($status, self::KNOWN_STATUSES, true)) {
            return $status;
        }
        return $order->is_paid() ? 'completed' : 'pending';
    }

    /**
     * @return list<array<string, mixed>>
     */
    private function lines(WC_Order $order): array
    {
        $lines = [];
        foreach ($order->get_items() as $item) {
            if ($item instanceof WC_Order_Item_Product) {
                $lines[] = [
                    'product_id' => (string) ($item->get_variation_id() ?: $item->get_product_id() ?: $item->get_id()),
                    'product_name' => $item->get_name(),
                    'product_type' => $this->product_type->of($item->get_product_id()),
                    'course_ids' => $this->courses->of_product($item->get_product_id()),
                    'quantity' => $item->get_quantity(),
                    'amount' => (float) $item->get_total() + (float) $item->get_total_tax(),
                ];
            }
        }
        return $lines;
    }

    /**
     * What was refunded of the order's lines: WooCommerce keeps negative quantities and totals, with a quantity of 0 where only a
     * part of the price went back.
     *
     * @return list<array<string, mixed>>
     */
    private function returned_lines(WC_Order_Refund $refund): array
    {
        $lines = [];
        foreach ($refund->get_items() as $item) {
            if ($item instanceof WC_Order_Item_Product) {
                $product = $item->get_variation_id() ?: $item->get_product_id() ?: $item->get_meta('_refunded_item_id');
                $lines[] = [
                    'product_id' => (string) $product,
                    'quantity' => abs((int) $item->get_quantity()),
                    'amount' => abs((float) $item->get_total() + (float) $item->get_total_tax()),
                ];
            }
        }
        return $lines;
    }

    /**
     * @param array<mixed> $marks
     * @return array<string, mixed>
     */
    private function metadata(WC_Order $order, array $marks, bool $is_renewal): array
    {
        $number = (string) $order->get_order_number();
        return $marks + array_filter([
            'created_via' => $order->get_created_via(),
            'order_number' => $number === (string) $order->get_id() ? '' : $number,
            'is_renewal' => $is_renewal,
        ]);
    }

    /**
     * Payment gateways call it testmode.
     */
    private function is_test(WC_Order $order): bool
    {
        $gateway = wc_get_payment_gateway_by_order($order);
        $mode = is_object($gateway) ? $gateway->testmode ?? null : null;
        /**
         * Whether an order is a test and not a sale.
         *
         * @param bool     $is_test
         * @param WC_Order $order
         */
        return (bool) apply_filters('pmp_analytics_is_test_order', in_array($mode, [true, 'yes', '1', 1], true), $order);
    }

    private function is_staff(WC_Order $order): bool
    {
        if ($order->get_customer_id() > 0) {
            return $this->config->is_staff($order->get_customer_id());
        }
        $user = get_user_by('email', $order->get_billing_email());
        return $user !== false && $this->config->is_staff($user->ID);
    }
}
