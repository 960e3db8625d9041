<?php

declare(strict_types=1);

namespace PMP\Theme;

/**
 * The scripts of the pages, none of them render-blocking, and the data layer, which is the same for every visitor.
 */
final class Scripts
{
    /** Understrap enqueues it in the head, where it blocks rendering. */
    private const TO_THE_END = ['jquery', 'jquery-core', 'jquery-migrate'];

    /** Loaded deferred. WordPress supports this since 6.3, unless another script depends on them. */
    private const DEFERRED = ['jquery-core', 'jquery-migrate', 'understrap-scripts'];

    public function register(): void
    {
        add_action('wp_enqueue_scripts', [$this, 'move_to_the_end'], 20);
        add_action('wp_footer', [$this, 'consent_link']);
    }

    public function move_to_the_end(): void
    {
        foreach (self::TO_THE_END as $handle) {
            wp_script_add_data($handle, 'group', 1);
        }
        foreach (self::DEFERRED as $handle) {
            wp_script_add_data($handle, 'strategy', 'defer');
        }
    }

    /**
     * A link for visitors who want to change their consent.
     */
    public function consent_link(): void
    {
        printf(
            '<p class="text-center"><button type="button" class="btn btn-link" data-pmp-consent="ask">%s</button></p>',
            esc_html__('Privacy choices', 'understrap-child'),
        );
    }

    /**
     * Pushes what a page shows to the tracker, whether it is loaded already or not.
     *
     * @param array<string, mixed> $metadata
     */
    public static function push(string $event_type, array $metadata): void
    {
        $event = wp_json_encode(['event_type' => $event_type, 'metadata' => $metadata], JSON_HEX_TAG | JSON_HEX_AMP);
        wp_print_inline_script_tag("(window.pmp ||= []).push({$event});");
    }
}
