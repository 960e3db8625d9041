<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

/**
 * Whether a product is a course, a guide or a membership: by its own field, by the course that an LMS plugin has linked to it, or
 * by its category.
 */
final class ProductType
{
    private const FIELD = '_pmp_product_type';

    /** Fields in which LMS plugins link a course to a product. */
    private const COURSE_FIELDS = ['_related_course', '_tutor_product'];

    private const CATEGORIES = '/\b(course|guide|membership)s?\b/i';

    public function of(int $product_id): string
    {
        /**
         * course, guide, membership or other.
         *
         * @param string $type
         * @param int    $product_id
         */
        return (string) apply_filters('pmp_analytics_product_type', $product_id > 0 ? $this->guess($product_id) : 'other', $product_id);
    }

    private function guess(int $product_id): string
    {
        $field = get_post_meta($product_id, self::FIELD, true);
        if (is_string($field) && $field !== '') {
            return $field;
        }
        foreach (self::COURSE_FIELDS as $name) {
            if (get_post_meta($product_id, $name, true)) {
                return 'course';
            }
        }
        $categories = get_the_terms($product_id, 'product_cat');
        foreach (is_array($categories) ? $categories : [] as $category) {
            if (preg_match(self::CATEGORIES, str_replace('-', ' ', $category->slug), $found) === 1) {
                return strtolower($found[1]);
            }
        }
        return 'other';
    }
}
