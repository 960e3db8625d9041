<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Capture\Enrollments;
use PMP\Analytics\Capture\OrderReader;
use PMP\Analytics\Hook;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;
use PMP\Analytics\Registerable;
use PMP\Analytics\Sync\SyncedUsers;
use PMP_Event_Queue;
use WC_Order;

/**
 * Tools > Export and Erase Personal Data: this plugin's data about a person. That is messages in the outbox, the session stored
 * with an order, the reported enrolments, and what the mesh has stated of an account. MeshData covers the data of the mesh.
 */
final class PersonalData implements Registerable
{
    public const ID = 'pmp-analytics';

    /** Fields that a waiting sale keeps without its buyer: the amount still counts. */
    private const IMPERSONAL = [
        'id', 'timestamp', 'order_id', 'product_id', 'product_name', 'product_type', 'amount', 'currency', 'payment_method',
        'payment_status', 'paid_at', 'lines', 'refunded_total', 'source', 'is_test', 'is_staff', 'reason', 'reported_at',
    ];

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly OrderReader $reader,
        private readonly SyncedUsers $users,
    ) {
    }

    public function register(): void
    {
        Hook::filter('wp_privacy_personal_data_exporters', [$this, 'add_exporter']);
        Hook::filter('wp_privacy_personal_data_erasers', [$this, 'add_eraser']);
        Hook::action('woocommerce_privacy_remove_order_personal_data', [$this, 'order_anonymized']);
        Hook::action('admin_init', [$this, 'suggest_policy']);
    }

    /**
     * WooCommerce has anonymised an order: by its eraser, in bulk, or because of the order's age. This plugin's eraser could not
     * find the order any more.
     */
    public function order_anonymized(mixed $order): void
    {
        if (! $order instanceof WC_Order) {
            return;
        }
        $this->reader->forget_session($order);
        $buyer = new Person([], []);
        $buyer->ordered([(string) $order->get_id()]);
        foreach ($this->queue->everything() as $message) {
            if (in_array($message->kind, [Kind::Purchase, Kind::Refund], true) && $buyer->claims($message)) {
                $this->erase_message($message);
            }
        }
    }

    /**
     * @param array<string, array<string, mixed>> $exporters
     * @return array<string, array<string, mixed>>
     */
    public function add_exporter(array $exporters): array
    {
        $exporters[self::ID] = ['exporter_friendly_name' => __('PMP Analytics', 'pmp-analytics'), 'callback' => [$this, 'export']];
        return $exporters;
    }

    /**
     * @param array<string, array<string, mixed>> $erasers
     * @return array<string, array<string, mixed>>
     */
    public function add_eraser(array $erasers): array
    {
        $erasers[self::ID] = ['eraser_friendly_name' => __('PMP Analytics', 'pmp-analytics'), 'callback' => [$this, 'erase']];
        return $erasers;
    }

    /**
     * Everything in one page: the outbox would change between pages.
     *
     * @return array{data: list<array<string, mixed>>, done: bool}
     */
    public function export(string $email): array
    {
        $person = Person::with_email($email);
        $items = [];
        foreach ($this->messages_of($person) as $message) {
            $items[] = $this->item("{$message->kind->value}-{$message->number}", [
                __('Kind', 'pmp-analytics') => $message->kind->value,
                __('Message to be delivered', 'pmp-analytics') => $message->json,
            ]);
        }
        foreach ($this->orders_of($person) as $order) {
            $session = $this->reader->session($order);
            if ($session !== []) {
                $items[] = $this->item("order-{$order->get_id()}", [
                    __('Order', 'pmp-analytics') => (string) $order->get_id(),
                    __('Session in which it was placed', 'pmp-analytics') => (string) wp_json_encode($session, JSON_UNESCAPED_SLASHES),
                ]);
            }
        }
        foreach ($person->user_ids as $user_id) {
            foreach (Enrollments::reported_of($user_id) as $course_id => $time) {
                $items[] = $this->item("course-{$course_id}", [
                    __('Course', 'pmp-analytics') => get_the_title($course_id) ?: (string) $course_id,
                    __('Enrolment reported', 'pmp-analytics') => gmdate('c', $time),
                ]);
            }
            $known = SyncedUsers::values_of($user_id);
            if ($known !== []) {
                $items[] = $this->item("user-{$user_id}", [
                    __('Known to our analytics system', 'pmp-analytics') => (string) wp_json_encode($known, JSON_UNESCAPED_SLASHES),
                ]);
            }
        }
        return ['data' => $items, 'done' => true];
    }

    /**
     * @return array{items_removed: bool, items_retained: bool, messages: list<string>, done: bool}
     */
    public function erase(string $email): array
    {
        $forgotten = $this->forget(Person::with_email($email));
        $message = __('PMP Analytics: the amounts of waiting sales are reported without their buyer.', 'pmp-analytics');
        return [
            'items_removed' => $forgotten['found'],
            'items_retained' => $forgotten['kept'],
            'messages' => $forgotten['kept'] ? [$message] : [],
            'done' => true,
        ];
    }

    /**
     * Erases the plugin's data about a person, and calls no other system.
     *
     * @return array{found: bool, kept: bool} Whether there was any data, and whether some of it is still to be delivered.
     */
    public function forget(Person $person): array
    {
        $found = false;
        $kept = false;
        foreach ($this->messages_of($person) as $message) {
            $found = true;
            $kept = $this->erase_message($message) || $kept;
        }
        foreach ($this->orders_of($person) as $order) {
            $found = $this->reader->forget_session($order) || $found;
        }
        foreach ($person->user_ids as $user_id) {
            $found = Enrollments::forget($user_id) || $found;
            $found = $this->users->forget($user_id) || $found;
        }
        return ['found' => $found, 'kept' => $kept];
    }

    public function suggest_policy(): void
    {
        if (! function_exists('wp_add_privacy_policy_content')) {
            return;
        }
        $sentences = [
            __('If you agree, we store in your browser an id of it, an id of your session, and what led you here.', 'pmp-analytics'),
            __('We record which pages you see, what you click, how long you stay and which forms you submit.', 'pmp-analytics'),
            __('Of the contents of a form we record only your e-mail address, if you ask us to write to you.', 'pmp-analytics'),
            __('None of this happens if you decline, or if your browser sends Global Privacy Control or Do Not Track.', 'pmp-analytics'),
            __('You can change your mind at any time.', 'pmp-analytics'),
            __('When you register, buy, get a refund or enrol in a course, we report this to our analytics system.', 'pmp-analytics'),
            __('It then receives your account, your e-mail address and your billing address, to account for our sales.', 'pmp-analytics'),
        ];
        wp_add_privacy_policy_content(
            __('PMP Analytics', 'pmp-analytics'),
            '<p>' . esc_html(implode(' ', $sentences)) . '</p>',
        );
    }

    /**
     * @return bool True if a message without personal data remains.
     */
    private function erase_message(StoredMessage $message): bool
    {
        $payload = (array) json_decode($message->json, true);
        if ($message->kind === Kind::Purchase) {
            $impersonal = array_intersect_key($payload, array_flip(self::IMPERSONAL));
            // A sale without a complete report needs an identifier.
            $nobody = isset($payload['reported_at']) ? [] : ['session_id' => "wc-order-{$payload['order_id']}"];
            $this->queue->replace($message, $impersonal + $nobody);
            return true;
        }
        if ($message->kind === Kind::Refund) {
            // Staff may write about people in the reason.
            $this->queue->replace($message, array_diff_key($payload, ['reason' => true]));
            return true;
        }
        $this->queue->forget($message);
        return false;
    }

    /**
     * @return list<StoredMessage>
     */
    private function messages_of(Person $person): array
    {
        $orders = $this->orders_of($person);
        $person->ordered(array_map(static fn (WC_Order $order): string => (string) $order->get_id(), $orders));
        foreach ($orders as $order) {
            $person->add_session((string) ($this->reader->session($order)['session_id'] ?? ''));
        }
        do {
            // A message may reveal a session that earlier messages belong to.
            $session_count = $person->session_count();
            $found = [];
            foreach ($this->queue->everything() as $message) {
                if ($person->claims($message)) {
                    $found[] = $message;
                }
            }
        } while ($person->session_count() > $session_count);
        return $found;
    }

    /**
     * @return list<WC_Order>
     */
    private function orders_of(Person $person): array
    {
        $customer = [...$person->emails, ...$person->user_ids];
        if ($customer === [] || ! function_exists('wc_get_orders')) {
            return [];
        }
        return array_values(wc_get_orders(['type' => 'shop_order', 'limit' => -1, 'customer' => $customer]));
    }

    /**
     * @param array<string, string> $facts
     * @return array<string, mixed> An item in WordPress's export format.
     */
    private function item(string $id, array $facts): array
    {
        $data = [];
        foreach ($facts as $name => $value) {
            $data[] = ['name' => $name, 'value' => esc_html($value)];
        }
        $label = __('PMP Analytics', 'pmp-analytics');
        return ['group_id' => self::ID, 'group_label' => $label, 'item_id' => self::ID . "-{$id}", 'data' => $data];
    }
}
